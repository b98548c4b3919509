//! `lemnos build` on a terminal: frames drawn over each other, within its width, and Ctrl-C.

use super::*;
use crate::buildkit::dial::stand_ins;

/// Columns of the terminal, where it is narrow.
const WIDTH: usize = 60;

/// The command with a terminal of its own, which `script` provides.
fn on_terminal(bench: &Bench, width: usize, args: &str) -> Command {
    let build = bench.command(&[]);
    let program = build.get_program().to_str().unwrap();
    let line = format!("stty cols {width} rows 20; exec {program} build {args}");
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(bench.dir.path());
    command.env_clear().envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("TERM", "xterm").env("SHELL", "/bin/sh");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What the screen shows in the end, as a terminal would: going up, erasing, colours; anything else is none of ours.
fn screen(told: &str, width: usize) -> Vec<String> {
    let (mut lines, mut row, mut column) = (vec![Vec::<char>::new()], 0, 0);
    let mut rest = told.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\n' => {
                row += 1;
                if lines.len() <= row {
                    lines.push(Vec::new());
                }
            }
            '\r' => column = 0,
            '\u{1b}' => {
                assert_eq!(rest.next(), Some('['), "only such sequences are ours: {told:?}");
                let mut parameter = String::new();
                while rest.peek().is_some_and(|c| c.is_ascii_digit() || *c == ';') {
                    parameter.extend(rest.next());
                }
                match rest.next() {
                    Some('A') => {
                        row = row.checked_sub(parameter.parse().unwrap()).expect("within the frames")
                    }
                    Some('K') => lines[row].truncate(column),
                    Some('J') => {
                        lines.truncate(row + 1);
                        lines[row].truncate(column);
                    }
                    Some('m') => {}
                    other => panic!("a log's own sequence came through: {other:?} in {told:?}"),
                }
            }
            c if c.is_control() => panic!("a log's own control character came through: {c:?} in {told:?}"),
            c => {
                if column < lines[row].len() {
                    lines[row][column] = c;
                } else {
                    lines[row].push(c);
                }
                column += 1;
                assert!(column < width, "a line is as wide as the terminal: {:?}", lines[row]);
            }
        }
    }
    lines.into_iter().map(String::from_iter).collect()
}

#[test]
fn a_terminal_shows_frames_of_its_width_and_finished_steps_as_a_number() {
    let bench = Bench::new(
        "FROM busybox\nRUN printf '\\033[2J\\033]0;title\\007evil-WORD\\n' && sleep 1\nRUN echo a-name-that-is-much-longer-than-a-terminal-of-sixty-columns-is-wide && sleep 1\n",
    );
    for (mode, colored) in [("--progress=tty", true), ("--progress=auto", false)] {
        let mut command = on_terminal(&bench, WIDTH, &format!("{mode} --no-cache -o type=cacheonly ."));
        if !colored {
            command.env("NO_COLOR", "1");
        }
        let ended = Ended::of(command.output().unwrap()).good();
        let told = ended.text();
        // how high the one is that the next one is drawn over, is a matter of when the daemon tells
        assert!(
            (2..=5).any(|rows| told.contains(&format!("\x1b[{rows}A"))),
            "drawn over each other: {told:?}"
        );
        // while it runs, a step and what it says
        assert!(
            told.contains("=> [2/3] RUN printf") && told.contains(&format!("evil-{}", bench.word)),
            "{told:?}"
        );
        assert!(told.contains("=> [3/3] RUN echo a-name"), "{told:?}");
        let last = screen(&told, WIDTH).join("\n");
        assert!(last.contains("[+] Building ") && last.contains(" FINISHED"), "{last}");
        assert!(last.contains(" build  ") && !last.contains("RUN"), "finished steps are a number: {last}");
    }
    // a failed one stands there, with what it said last
    let bench = Bench::new("FROM busybox\nRUN echo said-WORD; exit 7\n");
    let ended = Ended::of(on_terminal(&bench, WIDTH, "--progress=tty -o type=cacheonly .").output().unwrap());
    // the error under it is as long as it is
    let last = screen(&ended.text(), 500).join("\n");
    assert_eq!(ended.code, Some(1), "{last}");
    assert!(last.contains("FAILED") && last.contains("=> ERROR [2/2] RUN echo said"), "{last}");
    assert!(last.contains(&format!("said-{}", bench.word)) && last.contains("exit code: 7"), "{last}");
}

#[test]
fn what_is_said_beside_the_frames_stays_on_the_screen() {
    let bench = Bench::new("FROM busybox\nRUN echo WORD\n");
    let (dir, programs) = stand_ins();
    // frames are drawn while the builder's door opens slowly
    let slow = std::fs::read_to_string(dir.path().join("ssh")).unwrap();
    std::fs::write(dir.path().join("ssh"), slow.replacen("\n", "\nsleep 1\n", 1)).unwrap();
    let socket = engines().buildkit.strip_prefix("unix://").unwrap();
    let mut command = on_terminal(&bench, 200, &format!("--builder ssh://far{socket} ."));
    let ended = Ended::of(command.env("PATH", programs.path.unwrap()).output().unwrap()).good();
    let told = ended.text();
    let before = told.find("warning: no output").unwrap();
    assert!(told[..before].contains("[+] Building"), "a frame stood there: {told:?}");
    let last = screen(&told, 200);
    assert!(
        last[0].starts_with("warning: no output is named") && last[0].ends_with("into docker"),
        "{last:?}"
    );
    assert!(last[1].starts_with("[+] Building") && last[1].ends_with("FINISHED"), "{last:?}");
    assert_eq!(last.iter().filter(|line| line.contains("[+] Building")).count(), 1, "{last:?}");
}

fn running(seconds: &str) -> bool {
    let mut all = std::fs::read_dir("/proc").unwrap().flatten();
    let command = format!("sleep\0{seconds}\0");
    all.any(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == command.as_bytes()))
}

#[test]
fn ctrl_c_on_a_terminal_ends_the_command_and_its_step() {
    let bench = Bench::new("");
    let seconds = format!("77{:05}", std::process::id());
    bench.write("Dockerfile", &format!("FROM busybox\nRUN echo {} && sleep {seconds}\n", bench.word));
    let mut child = on_terminal(&bench, WIDTH, "--progress=tty -o type=cacheonly .").spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until("the step runs", &|| running(&seconds));
    child.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    let pressed = Instant::now();
    let ended = Ended::of(child.wait_with_output().unwrap());
    println!("ended {} ms after Ctrl-C", pressed.elapsed().as_millis());
    assert_eq!(ended.code, Some(130), "{}", ended.text());
    assert!(ended.text().contains("context canceled"), "{}", ended.text());
    until("the daemon ends the step", &|| !running(&seconds));
}
