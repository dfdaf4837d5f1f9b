//! The format of a program's file.
//!
//! A file contains a header, the metadata as JSON, and the plugin's serialized executable. The header consists of
//! little-endian numbers: 8 bytes [`MAGIC`]; the format version and the length of the metadata, both `u32`; the length
//! of the executable, `u64`; and a SHA-256 checksum. The checksum covers all other bytes of the file in their order, so
//! it detects a change of any byte.

use std::fs::File;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::System;
use crate::error::Error;
use crate::kernels::Spec;
use crate::memory;
use crate::pjrt::hex;

/// The first bytes of a file.
const MAGIC: &[u8; 8] = b"NUCPROG\n";

/// Increased when this module can no longer read the files of earlier versions.
pub(super) const FORMAT: u32 = 3;

/// The header without its checksum.
const FIELDS_BYTES: usize = 24;
const CHECKSUM_BYTES: usize = 32;

/// The largest accepted size of the metadata. Every version writes less.
const LARGEST_METADATA: usize = 1 << 20;

/// The largest accepted size of an executable. Sampling programs are smaller on every plugin.
const LARGEST_EXECUTABLE: usize = 1 << 30;

/// The metadata of a program in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The version of the library that wrote the file.
    pub library: String,
    /// [`Spec::name`].
    pub program: String,
    /// The specification of the program.
    pub spec: Spec,
    /// The target of the kernels in the program.
    pub target: String,
    /// The system for which the program was compiled.
    pub system: System,
    /// The plugin's name for the topology, if the program was compiled for a topology instead of the devices of a
    /// client.
    pub topology: Option<String>,
    /// SHA-256 of the program's text.
    pub program_sha256: String,
}

/// Why the program in a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// There is no memory for the program.
    #[error("{0}")]
    OutOfMemory(Error),
    /// Other users could have written the file.
    #[error("{0}")]
    Untrusted(String),
    /// The file does not contain a compiled program.
    #[error("it is not a file of compiled programs")]
    NoProgram,
    /// Another version of the library wrote the file.
    #[error("its format is version {0}, and this library reads version {FORMAT}")]
    Format(u32),
    /// Bytes are missing or wrong.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// The program was compiled for another system.
    #[error("it was made for {0}")]
    Other(String),
}

/// The header of a file.
pub(super) struct Header {
    fields: [u8; FIELDS_BYTES],
    metadata_bytes: usize,
    executable_bytes: usize,
    checksum: [u8; CHECKSUM_BYTES],
}

impl Header {
    fn new(metadata_bytes: usize, executable_bytes: usize) -> Header {
        let mut fields = [0; FIELDS_BYTES];
        fields[..8].copy_from_slice(MAGIC);
        fields[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        fields[12..16].copy_from_slice(&(metadata_bytes as u32).to_le_bytes());
        fields[16..].copy_from_slice(&(executable_bytes as u64).to_le_bytes());
        Header { fields, metadata_bytes, executable_bytes, checksum: [0; CHECKSUM_BYTES] }
    }

    /// Reads the header of a file of `file_bytes` bytes, and checks it against that size.
    pub(super) fn read(file: &mut File, file_bytes: u64) -> Result<Header, Unusable> {
        let mut header = Header::new(0, 0);
        let (fields, checksum) = (&mut header.fields, &mut header.checksum);
        file.read_exact(fields).map_err(|_| Unusable::NoProgram)?;
        if !fields.starts_with(MAGIC) {
            return Err(Unusable::NoProgram);
        }
        let number = |from: usize, to: usize| {
            fields[from..to].iter().rev().fold(0_u64, |number, &byte| number << 8 | u64::from(byte))
        };
        if number(8, 12) != u64::from(FORMAT) {
            return Err(Unusable::Format(number(8, 12) as u32));
        }
        let (metadata, executable) = (number(12, 16), number(16, 24));
        if metadata > LARGEST_METADATA as u64 || executable > LARGEST_EXECUTABLE as u64 {
            let text =
                format!("its header promises {metadata} bytes of metadata and {executable} of program");
            return Err(Unusable::Damaged(text));
        }
        let expected = (FIELDS_BYTES + CHECKSUM_BYTES) as u64 + metadata + executable;
        if file_bytes != expected {
            return Err(Unusable::Damaged(format!("it has {file_bytes} bytes instead of {expected}")));
        }
        (header.metadata_bytes, header.executable_bytes) = (metadata as usize, executable as usize);
        file.read_exact(checksum)?;
        Ok(header)
    }

    fn checksum_of(&self, metadata: &[u8], executable: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let hash = Sha256::new().chain_update(self.fields).chain_update(metadata).chain_update(executable);
        hash.finalize().into()
    }
}

/// Returns the header and the metadata of a file for `executable`, as bytes. The caller writes the executable after
/// them.
pub(super) fn encode(metadata: &Metadata, executable: &[u8]) -> Result<Vec<u8>, Error> {
    let metadata = serde_json::to_vec(metadata).map_err(|error| Error::Internal(error.to_string()))?;
    if metadata.len() > LARGEST_METADATA || executable.len() > LARGEST_EXECUTABLE {
        return Err(Error::Io(format!(
            "a file of {} bytes of metadata and {} of program would be too large to be read",
            metadata.len(),
            executable.len()
        )));
    }
    let header = Header::new(metadata.len(), executable.len());
    let checksum = header.checksum_of(&metadata, executable);
    Ok([&header.fields[..], &checksum, &metadata].concat())
}

/// Reads the metadata and the executable that follow a header, and verifies the checksum.
pub(super) fn read_verified(file: &mut File, header: &Header) -> Result<(Metadata, Vec<u8>), Unusable> {
    let metadata = read_exactly(file, header.metadata_bytes)?;
    let executable = read_exactly(file, header.executable_bytes)?;
    // Plugins do not check the executables that they load. A wrong byte could have any effect.
    if header.checksum_of(&metadata, &executable) != header.checksum {
        return Err(Unusable::Damaged("its checksum is wrong".to_owned()));
    }
    Ok((parse(&metadata)?, executable))
}

/// Reads the metadata that follow a header. They are not verified, so callers may use them only as a hint.
pub(super) fn read_unverified_metadata(file: &mut File, header: &Header) -> Result<Metadata, Unusable> {
    parse(&read_exactly(file, header.metadata_bytes)?)
}

fn parse(metadata: &[u8]) -> Result<Metadata, Unusable> {
    serde_json::from_slice(metadata).map_err(|error| Unusable::Damaged(error.to_string()))
}

fn read_exactly(file: &mut File, size: usize) -> Result<Vec<u8>, Unusable> {
    let mut bytes = memory::zeroed(size, "a compiled program").map_err(Unusable::OutOfMemory)?;
    file.read_exact(&mut bytes).map_err(|error| Unusable::Damaged(error.to_string()))?;
    Ok(bytes)
}

/// SHA-256 as lower-case hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
