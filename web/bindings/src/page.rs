//! The faces for JavaScript.
//!
//! A `Trainer` does one thing at a time: whoever calls it while one of its promises is open gets an error.

use osculant::gpu::Gpu;
use wasm_bindgen::JsError;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::drawing::{self, Point};
use crate::training::{Method, Standing, Training};

/// The GPU, or what the browser offers as one.
#[wasm_bindgen]
pub struct Device {
    gpu: Gpu,
}

#[wasm_bindgen]
impl Device {
    /// Asks the browser for a device.
    pub async fn connect() -> Result<Device, JsError> {
        let gpu = Gpu::new_async().await?;
        Ok(Self { gpu })
    }

    /// What the browser tells of it; browsers may say nothing.
    #[wasm_bindgen(getter)]
    pub fn name(&self) -> String {
        self.gpu.info().name.clone()
    }
}

/// A run of a method, `newton-cg` or `adam`.
#[wasm_bindgen]
pub struct Trainer {
    training: Training,
}

#[wasm_bindgen]
impl Trainer {
    /// A run at its first step.
    #[wasm_bindgen(constructor)]
    pub fn new(device: &Device, method: &str, seed: u32) -> Result<Trainer, JsError> {
        let method = Method::named(method)
            .ok_or_else(|| JsError::new(&format!("there is no method '{method}'")))?;
        let training = Training::new(&device.gpu, method, seed.into())?;
        Ok(Self { training })
    }

    /// One step; the loss of its mini-batch before it.
    pub async fn step(&mut self) -> Result<f64, JsError> {
        Ok(self.training.step().await?)
    }

    /// Steps taken.
    #[wasm_bindgen(getter)]
    pub fn steps(&self) -> u32 {
        self.training.steps()
    }

    /// Work done, in gradients of all training rows.
    #[wasm_bindgen(getter)]
    pub fn work(&self) -> f64 {
        self.training.work()
    }

    /// Losses and accuracy now.
    pub async fn evaluate(&mut self) -> Result<Evaluation, JsError> {
        let standing = self.training.evaluate().await?;
        Ok(Evaluation { standing })
    }

    /// The probability of each digit for a picture.
    pub async fn predict(&self, picture: Vec<f32>) -> Result<Vec<f64>, JsError> {
        Ok(self.training.probabilities(&picture).await?)
    }
}

/// How well a network does.
#[wasm_bindgen]
pub struct Evaluation {
    standing: Standing,
}

#[wasm_bindgen]
impl Evaluation {
    /// Mean loss on the training rows.
    #[wasm_bindgen(getter, js_name = trainLoss)]
    pub fn train_loss(&self) -> f64 {
        self.standing.train_loss
    }

    /// Mean loss on the test rows.
    #[wasm_bindgen(getter, js_name = testLoss)]
    pub fn test_loss(&self) -> f64 {
        self.standing.test_loss
    }

    /// Share of right answers on the test rows.
    #[wasm_bindgen(getter)]
    pub fn accuracy(&self) -> f64 {
        self.standing.accuracy
    }
}

/// The picture of a drawing, or nothing where there is none: strokes one after another, as coordinates x and y in turn, with the number of
/// points of each.
#[wasm_bindgen]
pub fn picture(coordinates: &[f32], lengths: &[usize]) -> Option<Vec<f32>> {
    let mut points = coordinates
        .chunks_exact(2)
        .map(|point| [point[0], point[1]]);
    let strokes: Vec<Vec<Point>> = lengths
        .iter()
        .map(|&length| points.by_ref().take(length).collect())
        .collect();
    drawing::picture(&strokes).map(Vec::from)
}
