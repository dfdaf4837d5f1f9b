//! A writer that keeps its first error and does not return it. It is for callers that would print a returned error.

use std::cell::RefCell;
use std::io::{Error, ErrorKind, Result, Seek, SeekFrom, Write};
use std::rc::Rc;

/// The text of the first error of a [`FirstError`], if an error has occurred.
#[derive(Clone, Default)]
pub(crate) struct Kept(Rc<RefCell<Option<String>>>);

impl Kept {
    /// Returns the first error. Later calls return the same error.
    pub(crate) fn check(&self) -> Result<()> {
        self.0.borrow().as_ref().map_or(Ok(()), |text| Err(Error::other(text.clone())))
    }

    fn failed(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Runs an operation and keeps its error. If an earlier operation failed, does nothing.
    fn keep(&self, operation: impl FnOnce() -> Result<()>) {
        if !self.failed() {
            *self.0.borrow_mut() = operation().err().map(|error| error.to_string());
        }
    }
}

/// A writer to a file that is empty at first. It does not return the errors of the file. After the first error, an
/// operation changes only the position, as if the operation had succeeded.
pub(crate) struct FirstError<W> {
    inner: W,
    kept: Kept,
    position: u64,
    length: u64,
}

impl<W> FirstError<W> {
    /// Returns a writer to `inner`, and the error that this writer keeps. `inner` must be empty.
    pub(crate) fn new(inner: W) -> (FirstError<W>, Kept) {
        let kept = Kept::default();
        (FirstError { inner, kept: kept.clone(), position: 0, length: 0 }, kept)
    }
}

impl<W: Write> Write for FirstError<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.kept.keep(|| self.inner.write_all(bytes));
        self.position += bytes.len() as u64;
        self.length = self.length.max(self.position);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        self.kept.keep(|| self.inner.flush());
        Ok(())
    }
}

impl<W: Seek> Seek for FirstError<W> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(distance) => self.length.checked_add_signed(distance),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
        };
        // A wrong position is a defect of the caller, not an error of the file. So this error is returned.
        self.position = position.ok_or(ErrorKind::InvalidInput)?;
        self.kept.keep(|| self.inner.seek(SeekFrom::Start(self.position)).map(drop));
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn it_continues_after_an_error_and_keeps_the_first() {
        let mut bytes = [0; 4];
        let (mut writer, kept) = FirstError::new(Cursor::new(&mut bytes[..]));
        writer.write_all(b"abc").unwrap();
        assert_eq!(writer.seek(SeekFrom::End(-2)).unwrap(), 1);
        writer.write_all(b"x").unwrap();
        assert!(kept.check().is_ok());
        writer.write_all(b"too long").unwrap();
        let first = kept.check().unwrap_err().to_string();
        writer.seek(SeekFrom::Start(0)).unwrap();
        writer.write_all(b"y").unwrap();
        writer.flush().unwrap();
        assert_eq!(writer.stream_position().unwrap(), 1);
        assert_eq!(writer.seek(SeekFrom::End(0)).unwrap(), 10);
        assert_eq!(writer.seek(SeekFrom::End(-11)).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(kept.check().unwrap_err().to_string(), first);
        drop(writer);
        assert_eq!(&bytes[..2], b"ax");
    }
}
