//! A fake that can be killed: its tasks and connections end at once, as those of a process would by SIGKILL.
#![allow(dead_code, reason = "each of its users takes what it needs")]

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Runtime;

/// A runtime of its own, so that nothing of it outlives a kill. Usable from tests with and without a runtime around them.
#[derive(Clone, Default)]
pub struct Process {
    runtime: Arc<Mutex<Option<Runtime>>>,
}

impl Process {
    /// Starts `main` as a task, after `kill` anew.
    pub fn start(&self, main: impl Future<Output = ()> + Send + 'static) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(main);
        let before = self.runtime.lock().unwrap().replace(runtime);
        assert!(before.is_none(), "one process at a time");
    }

    pub fn is_alive(&self) -> bool {
        self.runtime.lock().unwrap().is_some()
    }

    /// Returns when its sockets are closed.
    pub fn kill(&self) {
        let Some(runtime) = self.runtime.lock().unwrap().take() else { return };
        // on a thread, because a runtime does not wait for another one
        std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(5))).join().unwrap();
    }

    /// The same from one of its own tasks, which cannot wait for its own end.
    pub fn die(&self) {
        if let Some(runtime) = self.runtime.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }
}
