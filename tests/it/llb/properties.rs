//! Made-up descriptions through both builders, where Go is installed; else only the committed table was compared, and the
//! test says so.

use std::cell::RefCell;

use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::describe::Description;
use super::generate::description;
use super::oracle::Oracle;

/// How many graphs, and that so many of them must be ones that can be marshalled.
const CASES: u32 = 600;
const GOOD: u32 = 200;

#[test]
fn made_up_descriptions_come_to_gos_bytes() {
    let Some(oracle) = Oracle::start() else {
        eprintln!("no Go here: only the committed table of descriptions was compared with BuildKit's client");
        return;
    };
    let oracle = RefCell::new(oracle);
    let good = RefCell::new(0);
    let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let compared = TestRunner::new(config).run(&description(), |description| {
        let line = description.line();
        let read: Description = serde_json::from_str(&line).unwrap();
        let answer = oracle.borrow_mut().ask(&line);
        *good.borrow_mut() += u32::from(answer.error.is_empty());
        match answer.difference(&read.marshal()) {
            None => Ok(()),
            Some(difference) => Err(TestCaseError::fail(format!("{line}\n{difference}"))),
        }
    });
    if let Err(failure) = compared {
        panic!("{failure}");
    }
    let good = good.into_inner();
    println!("{CASES} descriptions compared, {good} of them marshalled by both");
    assert!(good >= GOOD, "only {good} of {CASES} can be marshalled: too few to prove anything");
}
