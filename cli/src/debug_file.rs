//! Writes the arrays of a call to an `.npz` file (NumPy): a zip archive with one `.npy` file per array.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use npyz::{AutoSerialize, DType, FixedSizeBytes, Serialize, TypeStr, WriterBuilder as _};
use nucleus::LogitsArray;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::first_error::{FirstError, Kept};
use crate::Result;

/// An `.npz` file that is being written. If it is dropped before [`DebugFile::finish`], the file is incomplete.
pub(crate) struct DebugFile {
    /// After an error, the destructor of the archive would try to complete the file again, and would print a message.
    /// So the writer of the archive does not return errors to it. `error` keeps the first error.
    archive: ZipWriter<FirstError<File>>,
    error: Kept,
}

/// The elements of an array.
pub(crate) enum Values<'a> {
    I32(&'a [i32]),
    U32(&'a [u32]),
    /// NumPy has no bfloat16. So the file contains such elements as raw data of two bytes, like the files that the
    /// package ml_dtypes writes. `array.view(ml_dtypes.bfloat16)` converts them.
    Logits(&'a LogitsArray),
}

impl DebugFile {
    pub(crate) fn create(path: &Path) -> Result<DebugFile> {
        let file = File::create(path).map_err(|error| error.to_string())?;
        let (file, error) = FirstError::new(file);
        Ok(DebugFile { archive: ZipWriter::new(file), error })
    }

    /// Adds an array.
    pub(crate) fn add(&mut self, name: &str, shape: &[usize], values: Values<'_>) -> Result<()> {
        // An array can have more than 4 GiB.
        let options =
            SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).large_file(true);
        self.archive.start_file(format!("{name}.npy"), options).map_err(|error| error.to_string())?;
        let shape: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
        let written = match values {
            Values::I32(values) => write(self, &shape, values.iter().copied()),
            Values::U32(values) => write(self, &shape, values.iter().copied()),
            Values::Logits(LogitsArray::F32(values)) => write(self, &shape, values.iter().copied()),
            Values::Logits(LogitsArray::F16(values)) => write(self, &shape, values.iter().copied()),
            Values::Logits(LogitsArray::Bf16(values)) => {
                let raw: TypeStr =
                    "|V2".parse().map_err(|_| "raw data of two bytes is no type".to_owned())?;
                let pairs = values.iter().map(|value| FixedSizeBytes(value.to_le_bytes()));
                write_as(self, &shape, DType::new_scalar(raw), pairs)
            }
        };
        written.map_err(|error| error.to_string())
    }

    /// Completes the file.
    pub(crate) fn finish(self) -> Result<()> {
        self.archive.finish().map_err(|error| error.to_string())?;
        self.error.check().map_err(|error| error.to_string())
    }
}

/// Writes to the current array. After the first error of the file, every write fails, so that no more data is
/// compressed.
impl Write for DebugFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.archive.write(bytes)?;
        self.error.check()?;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.archive.flush()?;
        self.error.check()
    }
}

fn write<T: AutoSerialize>(
    out: &mut impl Write,
    shape: &[u64],
    values: impl Iterator<Item = T>,
) -> std::io::Result<()> {
    write_as(out, shape, T::default_dtype(), values)
}

fn write_as<T: Serialize>(
    out: &mut impl Write,
    shape: &[u64],
    dtype: DType,
    values: impl Iterator<Item = T>,
) -> std::io::Result<()> {
    let mut writer = npyz::WriteOptions::<T>::new().dtype(dtype).shape(shape).writer(out).begin_nd()?;
    writer.extend(values)?;
    writer.finish()
}
