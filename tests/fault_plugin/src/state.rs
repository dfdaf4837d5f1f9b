//! The state of the proxy: the armed fault, the calls so far, and the live objects.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::fault::{Fault, Kind};
use crate::ledger::{Contents, Ledger};
use crate::store::Recipe;

/// A call in the list of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) function: usize,
    /// If the call copies a buffer to the host, the contents of this buffer. Otherwise [`Contents::Other`].
    pub(crate) contents: Contents,
}

#[derive(Default)]
pub(crate) struct State {
    armed: Option<Fault>,
    /// The number of counted calls since the fault was armed.
    counted: u64,
    pub(crate) fired: u64,
    pub(crate) calls: Vec<Call>,
    pub(crate) ledger: Ledger,
    /// Violations of the API by the caller.
    pub(crate) violations: Vec<String>,
    /// Serialized executables. The key contains the program text and the compile options.
    pub(crate) compiled: HashMap<Vec<u8>, Vec<u8>>,
    /// Destroyed objects that are kept for reuse.
    pub(crate) stored: HashMap<Recipe, Vec<usize>>,
    /// For each live object that can be reused: how it was created.
    pub(crate) recipes: HashMap<usize, Recipe>,
}

thread_local! {
    /// Whether this thread makes calls of the test program itself. The proxy does not count these calls, and injects no
    /// fault into them.
    pub(crate) static QUIET: Cell<bool> = const { Cell::new(false) };
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

/// Runs `body` with the state. The lock is never held during a call into the real plugin.
pub(crate) fn with<R>(body: impl FnOnce(&mut State) -> R) -> R {
    let mut state: MutexGuard<'_, Option<State>> = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    body(state.get_or_insert_with(State::default))
}

impl State {
    /// Arms a fault and clears the list of calls.
    pub(crate) fn arm(&mut self, fault: Option<Fault>) {
        (self.armed, self.counted, self.fired) = (fault, 0, 0);
        self.calls.clear();
    }

    /// Records a call and returns the fault to inject, if any.
    pub(crate) fn note(&mut self, call: Call) -> Option<Kind> {
        self.calls.push(call);
        let fault = self.armed?;
        if fault.function >= 0 && fault.function as usize != call.function {
            return None;
        }
        let at = self.counted;
        self.counted += 1;
        let now = if fault.kind == Kind::AllFail { at >= fault.at } else { at == fault.at };
        if !now || !fault.kind.applies(call.function, call.contents) {
            return None;
        }
        self.fired += 1;
        Some(fault.kind)
    }
}
