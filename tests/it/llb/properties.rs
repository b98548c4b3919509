//! Made-up descriptions through both builders, where Go is installed; else only the committed table was compared, and the
//! test says so.

use std::cell::RefCell;
use std::io::Write as _;

use lemnos::buildkit::llb::LlbError;
use proptest::strategy::BoxedStrategy;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use super::generate::description;
use super::language::Description;
use super::names::names;
use super::oracle::Oracle;

/// How many graphs, and that so many of them must be ones that can be marshalled.
const CASES: u32 = 600;
const GOOD: u32 = 200;

#[test]
fn made_up_descriptions_come_to_gos_bytes() {
    let good = compare(&description());
    assert!(
        good.is_none_or(|good| good >= GOOD),
        "only {good:?} of {CASES} can be marshalled: too few to prove anything"
    );
}

#[test]
fn made_up_names_are_read_as_go_reads_them() {
    compare(&names());
}

/// How many of the descriptions both builders marshalled; none without Go.
fn compare(descriptions: &BoxedStrategy<Description>) -> Option<u32> {
    let Some(oracle) = Oracle::start() else {
        // past the capture of a passing test's output
        let said =
            b"no Go here: only the committed table of descriptions was compared with BuildKit's client\n";
        std::io::stderr().write_all(said).unwrap();
        return None;
    };
    let oracle = RefCell::new(oracle);
    let good = RefCell::new(0);
    let config =
        Config { cases: CASES, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let compared = TestRunner::new(config).run(descriptions, |description| {
        let line = description.line();
        let ours = serde_json::from_str::<Description>(&line).unwrap().marshal();
        let answer = oracle.borrow_mut().ask(&line);
        *good.borrow_mut() += u32::from(answer.error.is_empty());
        match answer.difference(&ours) {
            // Go runs the words before the mistake
            Some(_) if matches!(ours, Err(LlbError::Words { .. })) => Ok(()),
            None => Ok(()),
            Some(difference) => Err(TestCaseError::fail(format!("{line}\n{difference}"))),
        }
    });
    match compared {
        Ok(()) => {}
        // the line says all; the description's own debug text is pages long
        Err(TestError::Fail(reason, _)) => panic!("{reason}"),
        Err(TestError::Abort(reason)) => panic!("aborted: {reason}"),
    }
    let good = good.into_inner();
    println!("{CASES} descriptions compared, {good} of them marshalled by both");
    Some(good)
}
