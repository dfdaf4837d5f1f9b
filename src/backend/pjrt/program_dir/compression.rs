//! Compression of executables: a zlib stream (RFC 1950), which ends in a checksum of the uncompressed bytes.
//!
//! Compression reduces an executable of libtpu to a twelfth of its size, and an executable of XLA's CPU compiler to a
//! fifth. Compiling a program takes seconds. Compression takes at most 0.1 s, and decompression at most 0.02 s.

use std::io::{self, Write};

use flate2::write::ZlibEncoder;
use flate2::{Compression, Decompress, FlushDecompress, Status};

use crate::error::Error;

/// The largest number of bytes that one byte of a stream can represent: 258 bytes per 2 bits.
pub(super) const LARGEST_RATIO: u64 = 1032;

/// Returns the compressed form of `bytes`.
pub(super) fn compress(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut encoder = ZlibEncoder::new(Fallible(Vec::new()), Compression::default());
    let finished = encoder.write_all(bytes).and_then(|()| encoder.finish());
    finished.map(|output| output.0).map_err(|error| match error.kind() {
        io::ErrorKind::OutOfMemory => Error::out_of_memory(bytes.len(), "a compressed program"),
        _ => Error::Internal(format!("a program could not be compressed: {error}")),
    })
}

/// Decompresses `stream` into `output`. The stream must consist of exactly the bytes that fill `output`. Otherwise the
/// error describes the problem.
pub(super) fn decompress(stream: &[u8], output: &mut [u8]) -> Result<(), String> {
    let mut state = Decompress::new(true);
    let status =
        state.decompress(stream, output, FlushDecompress::Finish).map_err(|error| error.to_string())?;
    let (read, written) = (state.total_in(), state.total_out());
    if status == Status::StreamEnd && (read, written) == (stream.len() as u64, output.len() as u64) {
        return Ok(());
    }
    Err(format!(
        "{read} of {} stored bytes became {written} bytes of program instead of {}",
        stream.len(),
        output.len()
    ))
}

/// A vector that reports failed allocations.
struct Fallible(Vec<u8>);

impl Write for Fallible {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_reserve(bytes.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases() -> [Vec<u8>; 4] {
        let noise = (0..100_000_u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        [vec![], vec![7], vec![0; 1_000_000], noise]
    }

    #[test]
    fn a_stream_restores_the_bytes() {
        for bytes in cases() {
            let stream = compress(&bytes).unwrap();
            assert!(bytes.len() as u64 <= stream.len() as u64 * LARGEST_RATIO);
            let mut output = vec![1; bytes.len()];
            decompress(&stream, &mut output).unwrap();
            assert!(output == bytes);
        }
    }

    /// The size must be exact, and nothing may follow the stream.
    #[test]
    fn other_sizes_are_refused() {
        for bytes in cases() {
            let stream = compress(&bytes).unwrap();
            for (stream, size) in [
                (&stream[..], bytes.len() + 1),
                (&stream[..], bytes.len().saturating_sub(1) + usize::from(bytes.is_empty())),
                (&[&stream[..], b"x"].concat()[..], bytes.len()),
                (&stream[..stream.len() - 1], bytes.len()),
                (&stream[..0], bytes.len()),
            ] {
                assert!(decompress(stream, &mut vec![0; size]).is_err(), "{size}, {}", stream.len());
            }
        }
    }

    #[test]
    fn wrong_bytes_are_refused() {
        let bytes = b"the same words, the same words, and others".repeat(3);
        let stream = compress(&bytes).unwrap();
        for at in 0..stream.len() {
            let mut wrong = stream.clone();
            wrong[at] ^= 0x10;
            let mut output = vec![0; bytes.len()];
            let outcome = decompress(&wrong, &mut output);
            // Some bits of the two header bytes have no effect on the output.
            assert!(outcome.is_err() || output == bytes, "changed at {at}");
        }
    }
}
