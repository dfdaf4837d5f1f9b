//! The format of a program's file.

use std::fs::File;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::System;
use crate::kernels::Spec;
use crate::pjrt::hex;

/// The first bytes of a file.
pub(super) const MAGIC: &[u8; 8] = b"NUCPROG\n";

/// Changes when this module could no longer read what it used to write.
pub(super) const FORMAT: u32 = 2;

/// More metadata than any version writes: a longer one is a damaged file.
const LARGEST_METADATA: usize = 1 << 20;

/// What a file says of its program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Version of the library that wrote it.
    pub library: String,
    /// [`Spec::name`].
    pub program: String,
    /// What the program is written for.
    pub spec: Spec,
    /// The kernels it holds.
    pub target: String,
    /// What it was compiled for.
    pub system: System,
    /// The plugin's name of the topology, where it was compiled for one and not for a client's devices.
    pub topology: Option<String>,
    /// Of the program's text.
    pub program_sha256: String,
    /// Length of the executable.
    pub executable_bytes: usize,
    /// Of the executable.
    pub executable_sha256: String,
}

/// Why a file's program is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is not a file of compiled programs")]
    NoProgram,
    /// Another library wrote it.
    #[error("its format is version {0}, and this library reads version {FORMAT}")]
    Format(u32),
    /// Bytes are missing or wrong.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It was made for something else.
    #[error("it was made for {0}")]
    Other(String),
}

/// Reads up to where the executable starts.
pub(super) fn read_metadata(file: &mut File) -> Result<Metadata, Unusable> {
    let mut head = [0; 16];
    file.read_exact(&mut head).map_err(|_| Unusable::NoProgram)?;
    if !head.starts_with(MAGIC) {
        return Err(Unusable::NoProgram);
    }
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if word(8) != FORMAT {
        return Err(Unusable::Format(word(8)));
    }
    let size = word(12) as usize;
    if size > LARGEST_METADATA {
        return Err(Unusable::Damaged(format!("{size} bytes of metadata")));
    }
    let mut metadata = vec![0; size];
    file.read_exact(&mut metadata).map_err(|error| Unusable::Damaged(error.to_string()))?;
    serde_json::from_slice(&metadata).map_err(|error| Unusable::Damaged(error.to_string()))
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
