//! Reads logits from files: one array of an `.npy` file (NumPy) or of a `.safetensors` file.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use npyz::{DType, FixedSizeBytes, NpyFile, Order, TypeChar};
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
        (TypeChar::Float, 4) => LogitsArray::F32(file.into_vec().map_err(|error| error.to_string())?),
        (TypeChar::Float, 2) => LogitsArray::F16(file.into_vec().map_err(|error| error.to_string())?),
        // NumPy has no bfloat16. The package ml_dtypes, which has one, writes it as raw data of two bytes.
        (TypeChar::RawData, 2) => {
            let pairs: Vec<FixedSizeBytes<2>> = file.into_vec().map_err(|error| error.to_string())?;
            LogitsArray::Bf16(pairs.into_iter().map(|pair| bf16::from_le_bytes(pair.0)).collect())
        }
        _ => return Err(unsupported(&dtype)),
    };
    Ok((logits, shape))
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
