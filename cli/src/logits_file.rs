//! Reads logits from files: one array of an `.npy` file (NumPy) or of a `.safetensors` file.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use npyz::{DType, FixedSizeBytes, NpyFile, Order, TypeChar};
use nucleus::batch::check_vocab;
use nucleus::dtype::Logits;
use safetensors::{Dtype as TensorType, SafeTensors};

use crate::Result;

/// The elements of an array, in row-major order. Elements of 16-bit types are raw bits.
pub(crate) enum Elements {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    F16(Vec<u16>),
}

/// Logits `[rows, vocab]`.
pub(crate) struct LogitsFile {
    elements: Elements,
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
        let (elements, shape) = outcome.map_err(|message| format!("{}: {message}", path.display()))?;
        let Some((&vocab, outer)) = shape.split_last() else {
            return Err(format!(
                "{}: the array has no dimension; it must be [vocab] or [rows, vocab]",
                path.display()
            ));
        };
        check_vocab(vocab).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(LogitsFile { elements, rows: outer.iter().product(), vocab })
    }

    pub(crate) fn logits(&self) -> Logits<'_> {
        match &self.elements {
            Elements::F32(elements) => Logits::F32(elements),
            Elements::Bf16(elements) => Logits::Bf16(elements),
            Elements::F16(elements) => Logits::F16(elements),
        }
    }
}

fn read_npy(path: &Path) -> Result<(Elements, Vec<usize>)> {
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
    let elements = match (kind.type_char(), kind.size_field()) {
        (TypeChar::Float, 4) => Elements::F32(file.into_vec().map_err(|error| error.to_string())?),
        (TypeChar::Float, 2) => {
            let halves: Vec<half::f16> = file.into_vec().map_err(|error| error.to_string())?;
            Elements::F16(halves.into_iter().map(half::f16::to_bits).collect())
        }
        // NumPy has no bfloat16. The package ml_dtypes, which has one, writes it as raw data of two bytes.
        (TypeChar::RawData, 2) => {
            let pairs: Vec<FixedSizeBytes<2>> = file.into_vec().map_err(|error| error.to_string())?;
            Elements::Bf16(pairs.into_iter().map(|pair| u16::from_le_bytes(pair.0)).collect())
        }
        _ => return Err(unsupported(&dtype)),
    };
    Ok((elements, shape))
}

fn read_safetensors(path: &Path, tensor: Option<&str>) -> Result<(Elements, Vec<usize>)> {
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
    let shorts = || data.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let elements = match view.dtype() {
        TensorType::F32 => Elements::F32(
            data.chunks_exact(4)
                .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]))
                .collect(),
        ),
        TensorType::BF16 => Elements::Bf16(shorts()),
        TensorType::F16 => Elements::F16(shorts()),
        other => return Err(format!("the type of {name:?} is {other:?}; it must be F32, F16 or BF16")),
    };
    Ok((elements, view.shape().to_vec()))
}

fn sizes(shape: impl Iterator<Item = u64>) -> Result<Vec<usize>> {
    shape.map(|size| usize::try_from(size).map_err(|_| format!("a dimension is {size}"))).collect()
}
