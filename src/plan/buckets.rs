//! The numbers of rows that programs are compiled for. Batches are padded to the next of these numbers, so that batches
//! of all sizes need only a few programs.

use super::call_shape::LogitsPlace;
use crate::error::Error;

/// The largest number in the default list.
pub const LARGEST_DEFAULT_BUCKET: usize = 128;

/// The largest number that a configured list may contain.
pub const LARGEST_BUCKET: usize = 1 << 16;

/// The largest length of a configured list.
pub const LARGEST_NUM_BUCKETS: usize = 64;

/// The list of the numbers of rows. It has at least one number. The numbers ascend and are 1 to [`LARGEST_BUCKET`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets(Vec<usize>);

impl Default for Buckets {
    /// The powers of two from 1 to [`LARGEST_DEFAULT_BUCKET`].
    fn default() -> Self {
        let sizes = std::iter::successors(Some(1), |size| Some(size * 2));
        Buckets(sizes.take_while(|&size| size <= LARGEST_DEFAULT_BUCKET).collect())
    }
}

impl Buckets {
    /// Checks the list of the option `row_buckets`. An empty list selects the default.
    pub fn new(sizes: &[usize]) -> Result<Buckets, Error> {
        let wrong = |message: String| Err(Error::named_argument("row_buckets", message));
        if sizes.is_empty() {
            return Ok(Buckets::default());
        }
        if sizes.len() > LARGEST_NUM_BUCKETS {
            return wrong(format!(
                "row_buckets has {} elements; it must have at most {LARGEST_NUM_BUCKETS}",
                sizes.len()
            ));
        }
        if let Some(place) = sizes.iter().position(|size| !(1..=LARGEST_BUCKET).contains(size)) {
            return wrong(format!(
                "row_buckets[{place}] is {}; it must be 1 to {LARGEST_BUCKET}",
                sizes[place]
            ));
        }
        if let Some(place) = sizes.windows(2).position(|pair| pair[0] >= pair[1]) {
            return wrong(format!(
                "row_buckets[{}] is {} and row_buckets[{place}] is {}; each element must be larger than the one \
                 before it",
                place + 1,
                sizes[place + 1],
                sizes[place]
            ));
        }
        Ok(Buckets(sizes.to_vec()))
    }

    /// The largest number of the list. Batches on the host with more rows run in pieces.
    pub(crate) fn largest(&self) -> usize {
        self.0[self.0.len() - 1]
    }

    /// Returns the number of rows of the program that runs a piece of `rows` rows. `rows` is at most
    /// [`Buckets::largest`].
    pub(crate) fn of_piece(&self, rows: usize) -> usize {
        self.0[self.0.partition_point(|&size| size < rows).min(self.0.len() - 1)]
    }

    /// Returns the numbers of rows of all programs that can run pieces of batches with up to `rows` rows.
    pub(crate) fn up_to(&self, rows: usize) -> &[usize] {
        let largest = self.of_piece(rows.min(self.largest()));
        &self.0[..=self.0.partition_point(|&size| size < largest)]
    }

    /// Returns the number of rows of the program that runs `rows` rows of a device buffer with `buffer_rows` rows. A
    /// buffer is not cut into pieces. So if `rows` exceeds the largest number of the list, the result is the next
    /// multiple of the largest number. The result is at most `buffer_rows`.
    pub(crate) fn of_group(&self, rows: usize, buffer_rows: usize) -> usize {
        let size = match rows <= self.largest() {
            true => self.of_piece(rows),
            false => rows.next_multiple_of(self.largest()),
        };
        size.min(buffer_rows)
    }
}

/// Checks a number of rows that programs are compiled for. With logits on a device, it is the number of rows of their
/// buffer. `place` is the path of the number inside the argument `name`.
pub(crate) fn check_rows(
    name: &'static str,
    place: &str,
    rows: usize,
    logits: LogitsPlace,
) -> Result<(), Error> {
    let right = match logits {
        LogitsPlace::Host if rows == 0 => "it must be at least 1".to_owned(),
        LogitsPlace::Device { .. } if !(1..=LARGEST_BUCKET).contains(&rows) => {
            format!("with logits on a device it must be 1 to {LARGEST_BUCKET}")
        }
        _ => return Ok(()),
    };
    Err(Error::named_argument(name, format!("{place} is {rows}; {right}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_powers_of_two() {
        let default = Buckets::new(&[]).unwrap();
        assert_eq!(default.0, [1, 2, 4, 8, 16, 32, 64, 128]);
        assert_eq!([1, 2, 3, 9, 128].map(|rows| default.of_piece(rows)), [1, 2, 4, 16, 128]);
        assert_eq!(default.up_to(9), [1, 2, 4, 8, 16]);
        assert_eq!(default.up_to(1000), default.0);
    }

    #[test]
    fn a_list_rounds_up() {
        let list = Buckets::new(&[3, 10, 48]).unwrap();
        assert_eq!([1, 3, 4, 10, 11, 48].map(|rows| list.of_piece(rows)), [3, 3, 10, 10, 48, 48]);
        assert_eq!((list.up_to(1), list.up_to(10)), (&[3][..], &[3, 10][..]));
        assert_eq!((list.up_to(11), list.up_to(500)), (&[3, 10, 48][..], &[3, 10, 48][..]));
    }

    /// The program of a group has room for the rows of the group, and has at most as many rows as the buffer.
    #[test]
    fn groups_fit_the_buffer() {
        let list = Buckets::new(&[3, 10]).unwrap();
        let sizes = [1, 4, 10, 11, 21, 25].map(|rows| list.of_group(rows, 25));
        assert_eq!(sizes, [3, 10, 10, 20, 25, 25]);
        assert_eq!(list.of_group(1, 2), 2);
        for rows in 1..=25 {
            assert!((rows..=25).contains(&list.of_group(rows, 25)));
        }
    }

    #[test]
    fn a_wrong_list_is_refused() {
        for (list, words) in [
            (&[0][..], "row_buckets[0] is 0; it must be 1 to"),
            (&[1, 2, 65_537], "row_buckets[2] is 65537"),
            (&[4, 4], "row_buckets[1] is 4 and row_buckets[0] is 4"),
            (&[1, 8, 2], "row_buckets[2] is 2 and row_buckets[1] is 8"),
            (&(1..=65).collect::<Vec<_>>(), "has 65 elements"),
        ] {
            let error = Buckets::new(list).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
