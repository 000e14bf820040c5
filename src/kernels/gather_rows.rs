//! Face of `shaders/gather_rows.wgsl`: rows of a table that stays on the device, chosen by indices that are there too.

use super::dot::Capabilities;
use super::requirements;
use super::template::{fill, size};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice, grid};

const GATHER_ROWS: &str = include_str!("../../shaders/gather_rows.wgsl");

/// Most words, or fours of them, that an invocation moves.
const MOVED: usize = 4;

/// A table `[rows, width]` of words of four bytes, in pieces of whole rows that a binding holds.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    rows: usize,
    width: usize,
    /// Of as many rows each, but for the last.
    pieces: Vec<Slice>,
    rows_of_piece: usize,
}

impl Table {
    /// Uploads a table.
    ///
    /// # Errors
    /// [`Error::OverLimit`] where one row is larger than a binding, or there are more rows than u32 counts; [`Error::OutOfMemory`].
    pub(crate) fn upload<T: bytemuck::NoUninit>(
        gpu: &Gpu,
        label: &str,
        values: &[T],
        width: usize,
    ) -> Result<Self> {
        let limit = gpu.limits().max_storage_buffer_binding_size;
        let bytes = 4 * width as u64;
        if bytes > limit {
            return Err(Error::OverLimit {
                what: format!("a row of the {label}"),
                needed: bytes,
                limit_name: "max_storage_buffer_binding_size",
                limit,
                advice: "use an adapter with larger buffers, or fewer columns",
            });
        }
        let most = usize::try_from(limit / bytes.max(1)).unwrap_or(usize::MAX);
        Self::in_pieces(gpu, label, (values, width), most)
    }

    /// Uploads a table in pieces of up to so many rows.
    pub(super) fn in_pieces<T: bytemuck::NoUninit>(
        gpu: &Gpu,
        label: &str,
        (values, width): (&[T], usize),
        most: usize,
    ) -> Result<Self> {
        let rows = values.len() / width.max(1);
        size(rows)?;
        let rows_of_piece = most.min(rows).max(1);
        let piece = |values: &[T]| {
            let piece = gpu.buffer(label, values.len())?;
            gpu.upload(&piece, 0, values)?;
            Ok(piece)
        };
        Ok(Self {
            rows,
            width,
            pieces: values
                .chunks(rows_of_piece * width.max(1))
                .map(piece)
                .collect::<Result<_>>()?,
            rows_of_piece,
        })
    }

    /// Bytes that it takes on the device.
    pub(crate) fn bytes(&self) -> u64 {
        self.pieces.iter().map(Slice::bytes).sum()
    }

    /// Records `result[i, :] = table[index[i], :]`, with zeros where an index is beyond the table.
    ///
    /// # Errors
    /// [`Error::Length`] unless `result` holds a row for each index; limits of the device.
    pub(crate) fn gather(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        result: &Slice,
        index: &Slice,
    ) -> Result<()> {
        let count = index.len();
        if result.len() != count * self.width {
            return Err(Error::Length {
                what: format!("'{}', for rows of {},", result.label(), self.width),
                found: result.len(),
                expected: count * self.width,
            });
        }
        let (words, each) = match self.width % 4 {
            0 if Capabilities::of(gpu).wide_loads => ("vec2<u64>", 4),
            0 => ("vec4<u32>", 4),
            _ => ("u32", 1),
        };
        let text = fill(
            GATHER_ROWS,
            &[("words", &format!("alias Words = {words};"))],
        )?;
        let across = self.width / each;
        let lanes = across.div_ceil(MOVED);
        let constants = [("WIDTH", across as f64), ("LANES", lanes as f64)];
        let pipeline = gpu.kernel("gather_rows", &text, &constants, requirements::GATHER_ROWS)?;
        let workgroups = grid(gpu.limits(), (count * lanes).div_ceil(64))?;
        for (number, piece) in self.pieces.iter().enumerate() {
            let sizes = gpu.sizes([
                size(count)?,
                size(number * self.rows_of_piece)?,
                size(piece.len() / self.width)?,
                size(self.rows)?,
            ])?;
            let bindings = [result, piece, index, &sizes];
            recording.dispatch(gpu, &pipeline, &bindings, workgroups)?;
        }
        Ok(())
    }
}
