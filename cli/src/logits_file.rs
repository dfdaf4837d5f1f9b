//! Reads logits from files: one array of an `.npy` file (NumPy) or of a `.safetensors` file.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use npyz::{DType, Deserialize, FixedSizeBytes, NpyFile, Order, TypeChar};
use nucleus::batch::check_vocab;
use nucleus::{bf16, f16, LogitsArray};
use safetensors::{Dtype as TensorType, SafeTensors};

use crate::Result;

/// Logits `[rows, vocab]`.
pub(crate) struct LogitsFile {
    /// In row-major order.
    pub(crate) logits: LogitsArray,
    pub(crate) rows: usize,
    pub(crate) vocab: usize,
}

impl LogitsFile {
    /// Reads an array with one or more dimensions. The last dimension is the vocabulary; the others are the rows.
    /// `tensor` is the name of an array of a `.safetensors` file, which is needed if the file has several.
    pub(crate) fn read(path: &Path, tensor: Option<&str>) -> Result<LogitsFile> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let outcome = match extension {
            "npy" if tensor.is_some() => Err("--tensor is for .safetensors files".to_owned()),
            "npy" => read_npy(path),
            "safetensors" => read_safetensors(path, tensor),
            _ => Err("the name must end in .npy or .safetensors".to_owned()),
        };
        let (logits, shape) = outcome.map_err(|message| format!("{}: {message}", path.display()))?;
        let Some((&vocab, outer)) = shape.split_last() else {
            return Err(format!(
                "{}: the array has no dimension; it must be [vocab] or [rows, vocab]",
                path.display()
            ));
        };
        check_vocab(vocab).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(LogitsFile { logits, rows: outer.iter().product(), vocab })
    }
}

fn read_npy(path: &Path) -> Result<(LogitsArray, Vec<usize>)> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    // The length of a pipe is unknown.
    let length = metadata.is_file().then_some(metadata.len());
    let file = NpyFile::new(BufReader::new(file)).map_err(|error| error.to_string())?;
    if file.order() != Order::C {
        return Err("the array is in Fortran order; save numpy.ascontiguousarray(array)".to_owned());
    }
    let shape = sizes(file.shape().iter().copied())?;
    let unsupported =
        |dtype: &DType| format!("the type is {}; it must be float32, float16 or bfloat16", dtype.descr());
    let dtype = file.dtype();
    let DType::Plain(kind) = &dtype else { return Err(unsupported(&dtype)) };
    let logits = match (kind.type_char(), kind.size_field()) {
        (TypeChar::Float, 4) => LogitsArray::F32(values(file, length, 4)?),
        (TypeChar::Float, 2) => LogitsArray::F16(values(file, length, 2)?),
        // NumPy has no bfloat16. The package ml_dtypes, which has one, writes it as raw data of two bytes.
        (TypeChar::RawData, 2) => {
            let pairs: Vec<FixedSizeBytes<2>> = values(file, length, 2)?;
            LogitsArray::Bf16(pairs.into_iter().map(|pair| bf16::from_le_bytes(pair.0)).collect())
        }
        _ => return Err(unsupported(&dtype)),
    };
    Ok((logits, shape))
}

/// Reads all elements of an `.npy` file. The header of a damaged file can state any shape. So this function reserves
/// memory only if the file is long enough for the array. `length` is the length of the file in bytes, or `None` if the
/// length is unknown. The length of a pipe is unknown. `element` is the size of an element in bytes.
fn values<T: Deserialize>(file: NpyFile<impl Read>, length: Option<u64>, element: u64) -> Result<Vec<T>> {
    let damaged =
        |reason: &str| format!("the shape is {:?}, but {reason}; save the array again", file.shape());
    let count = file.shape().iter().try_fold(1u64, |count, &size| count.checked_mul(size));
    let bytes = count.and_then(|count| count.checked_mul(element));
    let (Some(count), Some(bytes)) = (count, bytes) else {
        return Err(damaged("no file can contain so many elements"));
    };
    if let Some(length) = length.filter(|&length| length < bytes) {
        return Err(damaged(&format!("the file has only {length} bytes")));
    }
    let mut values = Vec::new();
    if length.is_some() {
        let count = usize::try_from(count).map_err(|error| error.to_string())?;
        values.try_reserve_exact(count).map_err(|error| error.to_string())?;
    }
    let elements = file.data().map_err(|error| error.to_string())?;
    for element in elements {
        values.push(element.map_err(|error| error.to_string())?);
    }
    Ok(values)
}

fn read_safetensors(path: &Path, tensor: Option<&str>) -> Result<(LogitsArray, Vec<usize>)> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(|error| error.to_string())?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| error.to_string())?;
    let mut names = tensors.names();
    names.sort_unstable();
    let name = match (tensor, &names[..]) {
        (Some(name), _) => name,
        (None, [name]) => name,
        (None, _) => {
            return Err(format!(
                "the file has {} arrays; select one with --tensor: {}",
                names.len(),
                names.join(", ")
            ))
        }
    };
    let view = tensors
        .tensor(name)
        .map_err(|_| format!("there is no array {name:?}; the file has: {}", names.join(", ")))?;
    let data = view.data();
    let pairs = || data.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    let logits = match view.dtype() {
        TensorType::F32 => LogitsArray::F32(
            data.chunks_exact(4)
                .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]))
                .collect(),
        ),
        TensorType::BF16 => LogitsArray::Bf16(pairs().map(bf16::from_le_bytes).collect()),
        TensorType::F16 => LogitsArray::F16(pairs().map(f16::from_le_bytes).collect()),
        other => return Err(format!("the type of {name:?} is {other:?}; it must be F32, F16 or BF16")),
    };
    Ok((logits, view.shape().to_vec()))
}

fn sizes(shape: impl Iterator<Item = u64>) -> Result<Vec<usize>> {
    shape.map(|size| usize::try_from(size).map_err(|_| format!("a dimension is {size}"))).collect()
}
