//! The format of a program's file.
//!
//! A file contains a header, the metadata as JSON, and the plugin's serialized executable, compressed. The header
//! consists of little-endian numbers: 8 bytes [`MAGIC`]; the format version and the length of the metadata, both `u32`;
//! the length of the executable before and after compression, both `u64`; and a SHA-256 checksum. The checksum covers
//! all other bytes of the file in their order, so it detects a change of any byte.

use std::fs::File;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::compression::{compress, decompress, LARGEST_RATIO};
use super::System;
use crate::error::Error;
use crate::kernels::program::ProgramSpec;
use crate::memory;
use crate::pjrt::hex;

/// The first bytes of a file.
pub(super) const MAGIC: &[u8; 8] = b"NUCPROG\n";

/// Increased when this module can no longer read the files of earlier versions.
pub(super) const FORMAT: u32 = 5;

/// The header without its checksum.
const FIELDS_BYTES: usize = 32;
const CHECKSUM_BYTES: usize = 32;

/// The largest accepted size of the metadata. Every version writes less.
const LARGEST_METADATA: usize = 1 << 20;

/// The largest accepted size of an executable. Sampling programs are smaller on every plugin.
const LARGEST_EXECUTABLE: usize = 1 << 30;

/// The largest accepted size of a compressed executable. Compression enlarges random bytes by less than a thousandth.
const LARGEST_STORED: usize = LARGEST_EXECUTABLE + (LARGEST_EXECUTABLE >> 9);

/// The metadata of a program in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The version of the library that wrote the file.
    pub library: String,
    /// [`ProgramSpec::name`].
    pub program: String,
    /// The specification of the program.
    pub spec: ProgramSpec,
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
    sizes: Sizes,
    checksum: [u8; CHECKSUM_BYTES],
}

/// The sizes of the parts of a file, in bytes.
#[derive(Clone, Copy)]
struct Sizes {
    metadata: usize,
    /// The executable before compression.
    executable: usize,
    /// The executable after compression.
    stored: usize,
}

impl Sizes {
    /// Returns the sizes if this library accepts them. A damaged or hostile header can declare any size, and the reader
    /// allocates memory of the declared sizes. So they must be checked first.
    fn checked(metadata: u64, executable: u64, stored: u64) -> Option<Sizes> {
        let is_accepted = metadata <= LARGEST_METADATA as u64
            && executable <= LARGEST_EXECUTABLE as u64
            && stored <= LARGEST_STORED as u64
            && executable <= stored * LARGEST_RATIO;
        is_accepted.then_some(Sizes {
            metadata: metadata as usize,
            executable: executable as usize,
            stored: stored as usize,
        })
    }

    fn of_file(self) -> u64 {
        (FIELDS_BYTES + CHECKSUM_BYTES + self.metadata + self.stored) as u64
    }
}

impl Header {
    fn new(sizes: Sizes) -> Header {
        let mut fields = [0; FIELDS_BYTES];
        fields[..8].copy_from_slice(MAGIC);
        fields[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        fields[12..16].copy_from_slice(&(sizes.metadata as u32).to_le_bytes());
        fields[16..24].copy_from_slice(&(sizes.executable as u64).to_le_bytes());
        fields[24..].copy_from_slice(&(sizes.stored as u64).to_le_bytes());
        Header { fields, sizes, checksum: [0; CHECKSUM_BYTES] }
    }

    /// Reads the header of a file of `file_bytes` bytes, and checks it against that size.
    pub(super) fn read(file: &mut File, file_bytes: u64) -> Result<Header, Unusable> {
        let mut fields = [0; FIELDS_BYTES];
        file.read_exact(&mut fields).map_err(|_| Unusable::NoProgram)?;
        if !fields.starts_with(MAGIC) {
            return Err(Unusable::NoProgram);
        }
        let number = |from: usize, to: usize| {
            fields[from..to].iter().rev().fold(0_u64, |number, &byte| number << 8 | u64::from(byte))
        };
        if number(8, 12) != u64::from(FORMAT) {
            return Err(Unusable::Format(number(8, 12) as u32));
        }
        let (metadata, executable, stored) = (number(12, 16), number(16, 24), number(24, 32));
        let sizes = Sizes::checked(metadata, executable, stored).ok_or_else(|| {
            Unusable::Damaged(format!(
                "its header promises {metadata} bytes of metadata, and {executable} of program from {stored} stored \
                 bytes"
            ))
        })?;
        let expected = sizes.of_file();
        if file_bytes != expected {
            return Err(Unusable::Damaged(format!("it has {file_bytes} bytes instead of {expected}")));
        }
        let mut checksum = [0; CHECKSUM_BYTES];
        file.read_exact(&mut checksum)?;
        Ok(Header { fields, sizes, checksum })
    }

    fn checksum_of(&self, metadata: &[u8], stored: &[u8]) -> [u8; CHECKSUM_BYTES] {
        let hash = Sha256::new().chain_update(self.fields).chain_update(metadata).chain_update(stored);
        hash.finalize().into()
    }
}

/// Whether the next bytes of `file` are those that begin a program's file of any version.
pub(super) fn has_magic(file: &mut File) -> bool {
    let mut start = [0; MAGIC.len()];
    file.read_exact(&mut start).is_ok() && start == *MAGIC
}

/// Returns a file for `executable`, in two parts: the header with the metadata, and the compressed executable.
pub(super) fn encode(metadata: &Metadata, executable: &[u8]) -> Result<[Vec<u8>; 2], Error> {
    let metadata = serde_json::to_vec(metadata).map_err(|error| Error::Internal(error.to_string()))?;
    let too_large = || {
        Error::Io(format!(
            "a file of {} bytes of metadata and {} of program would be too large to be read",
            metadata.len(),
            executable.len()
        ))
    };
    // Compressing an executable that is too large would only waste time.
    if executable.len() > LARGEST_EXECUTABLE {
        return Err(too_large());
    }
    let stored = compress(executable)?;
    let sizes = Sizes::checked(metadata.len() as u64, executable.len() as u64, stored.len() as u64);
    let header = Header::new(sizes.ok_or_else(too_large)?);
    let checksum = header.checksum_of(&metadata, &stored);
    Ok([[&header.fields[..], &checksum, &metadata].concat(), stored])
}

/// Reads the metadata and the executable that follow a header, and verifies the checksum.
pub(super) fn read_verified(file: &mut File, header: &Header) -> Result<(Metadata, Vec<u8>), Unusable> {
    let Sizes { metadata, executable, stored } = header.sizes;
    let metadata = read_exactly(file, metadata)?;
    let stored = read_exactly(file, stored)?;
    // Plugins do not check the executables that they load. A wrong byte could have any effect.
    if header.checksum_of(&metadata, &stored) != header.checksum {
        return Err(Unusable::Damaged("its checksum is wrong".to_owned()));
    }
    let metadata = parse(&metadata)?;
    let mut output = allocate(executable)?;
    decompress(&stored, &mut output).map_err(Unusable::Damaged)?;
    Ok((metadata, output))
}

/// Reads the metadata that follow a header. They are not verified, so callers may use them only as a hint.
pub(super) fn read_unverified_metadata(file: &mut File, header: &Header) -> Result<Metadata, Unusable> {
    parse(&read_exactly(file, header.sizes.metadata)?)
}

fn parse(metadata: &[u8]) -> Result<Metadata, Unusable> {
    serde_json::from_slice(metadata).map_err(|error| Unusable::Damaged(error.to_string()))
}

fn read_exactly(file: &mut File, size: usize) -> Result<Vec<u8>, Unusable> {
    let mut bytes = allocate(size)?;
    file.read_exact(&mut bytes).map_err(|error| Unusable::Damaged(error.to_string()))?;
    Ok(bytes)
}

fn allocate(size: usize) -> Result<Vec<u8>, Unusable> {
    memory::zeroed(size, "a compiled program").map_err(Unusable::OutOfMemory)
}

/// SHA-256 as lower-case hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
