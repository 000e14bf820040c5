//! Rows of a table, and numbers of rows that are drawn, beside the same on the host.

use super::gather_rows::Table;
use crate::data::Shuffle;
use crate::error::Result;
use crate::gpu::{Gpu, Recording};
use crate::random::philox4x32;

/// Words of every kind, a table in one piece and in several with the last one partly filled, indices beyond it, and so many rows that
/// they take two rows of a grid.
#[test]
fn rows_of_a_table() -> Result<()> {
    let gpu = Gpu::new()?;
    for (width, rows, most, count) in [
        (1, 1, 1, 3),
        (1, 70, 70, 200),
        (3, 70, 32, 200),
        (5, 70, 32, 200),
        (4, 70, 32, 200),
        (28, 70, 32, 200),
        (64, 129, 64, 65),
        (1, 70, 32, 4_200_000),
    ] {
        // Among them NaN of many kinds and numbers below the smallest normal one.
        let word = |i: usize| philox4x32([i as u32, 0, 0, 0], [7, 0])[0] >> (i % 24);
        let table: Vec<u32> = (0..rows * width).map(word).collect();
        let chosen = |i: usize| match i % 11 {
            9 => u32::MAX,
            10 => (rows + i) as u32,
            _ => (i * i % rows) as u32,
        };
        let numbers: Vec<u32> = (0..count).map(chosen).collect();
        let on_device = Table::in_pieces(&gpu, "table", (&table, width), most)?;
        assert_eq!(on_device.bytes(), 4 * table.len() as u64);
        let index = gpu.buffer("index", count)?;
        let result = gpu.buffer("result", count * width)?;
        gpu.upload(&index, 0, &numbers)?;
        gpu.upload(&result, 0, &vec![1u32; count * width])?;
        let mut recording = Recording::new();
        on_device.gather(&gpu, &mut recording, &result, &index)?;
        gpu.submit(|recorder| recorder.replay(&recording))?;
        let found = gpu.read_u32(&[&result])?.remove(0);
        for (at, &word) in found.iter().enumerate() {
            let place = numbers[at / width] as usize * width + at % width;
            let expected = table.get(place).copied().unwrap_or(0);
            assert_eq!(word, expected, "{width} {rows}, element {at}");
        }
        let short = gpu.buffer("result", count * width + 1)?;
        assert!(
            on_device
                .gather(&gpu, &mut recording, &short, &index)
                .is_err()
        );
    }
    Ok(())
}

/// The same integers as on the host, for steps of several epochs; the numbers of steps go up to the last.
#[test]
fn rows_drawn_without_replacement() -> Result<()> {
    let gpu = Gpu::new()?;
    for (rows, batch) in [
        (1, 1),
        (2, 2),
        (3, 1),
        (10, 4),
        (1797, 256),
        (70_000, 70_000),
        (usize::MAX >> 32, 300),
    ] {
        let shuffle = Shuffle::new(rows, batch, 0x1234_5678_9abc_def0)?;
        let (index, step) = (gpu.buffer("index", batch)?, gpu.buffer("step", 1)?);
        let mut recording = Recording::new();
        shuffle.record(&gpu, &mut recording, &index, &step)?;
        for number in [0, 1, 2, 7, u32::MAX] {
            gpu.upload(&step, 0, &[number])?;
            gpu.submit(|recorder| recorder.replay(&recording))?;
            let found = gpu.read_u32(&[&index])?.remove(0);
            let expected = shuffle.batch(number);
            let same = found.iter().zip(&expected).all(|(&a, &b)| a as usize == b);
            assert!(
                same && found.len() == expected.len(),
                "{rows}, step {number}"
            );
        }
        let other = gpu.buffer("index", batch + 1)?;
        assert!(shuffle.record(&gpu, &mut recording, &other, &step).is_err());
    }
    Ok(())
}
