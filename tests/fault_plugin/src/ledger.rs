//! The objects that the proxy returned and that are not destroyed yet.

use std::collections::HashMap;

use crate::fault::Kind;

/// The object behind a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    Client,
    Topology,
    Event {
        /// The error that the proxy reports instead of the real outcome, if there is one.
        fails: Option<Kind>,
    },
    Buffer {
        contents: Contents,
        /// The error that the proxy reports at the end of every use of the buffer, if there is one.
        fails: Option<Kind>,
    },
    Loaded {
        /// The number of outputs of the program, and the number that the proxy reported to the caller.
        outputs: usize,
        told: usize,
    },
    Executable {
        /// The loaded executable that this object describes; 0 if there is none.
        loaded: usize,
    },
    /// Bytes of a serialized executable, and the real plugin's deleter.
    Serialized {
        deleter: usize,
    },
    /// An error of the real plugin.
    RealError,
    /// An error of the proxy.
    OwnError(Kind),
}

/// The contents of a buffer.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Any other data.
    Other,
    /// The first output of a program: the results of every row, `[5, rows]`.
    Results,
    /// The second output of a program on device logits: the tokens, `[rows]`.
    Tokens,
}

#[derive(Default)]
pub(crate) struct Ledger {
    live: HashMap<usize, Object>,
}

impl Ledger {
    pub(crate) fn add<T>(&mut self, pointer: *mut T, object: Object) {
        if !pointer.is_null() {
            self.live.insert(pointer as usize, object);
        }
    }

    pub(crate) fn get<T>(&self, pointer: *const T) -> Option<Object> {
        self.live.get(&(pointer as usize)).copied()
    }

    pub(crate) fn get_mut(&mut self, pointer: usize) -> Option<&mut Object> {
        self.live.get_mut(&pointer)
    }

    /// Returns the error that the proxy reports for an event, or at the end of a use of a buffer.
    pub(crate) fn failure<T>(&self, pointer: *const T) -> Option<Kind> {
        match self.get(pointer)? {
            Object::Event { fails } | Object::Buffer { fails, .. } => fails,
            _ => None,
        }
    }

    /// Sets the error that [`Ledger::failure`] returns for an event or a buffer.
    pub(crate) fn set_failure<T>(&mut self, pointer: *const T, kind: Kind) {
        if let Some(Object::Event { fails } | Object::Buffer { fails, .. }) =
            self.live.get_mut(&(pointer as usize))
        {
            *fails = Some(kind);
        }
    }

    pub(crate) fn remove<T>(&mut self, pointer: *const T) -> Option<Object> {
        self.live.remove(&(pointer as usize))
    }

    /// A description of the live objects, or an empty string if there are none.
    pub(crate) fn describe(&self) -> String {
        let mut names: Vec<String> = self.live.values().map(|object| format!("{object:?}")).collect();
        names.sort();
        names.join(", ")
    }

    /// The number of live objects that belong to a client.
    pub(crate) fn of_clients(&self) -> usize {
        let belongs = |object: &&Object| {
            matches!(object, Object::Buffer { .. } | Object::Loaded { .. } | Object::Event { .. })
        };
        self.live.values().filter(belongs).count()
    }
}
