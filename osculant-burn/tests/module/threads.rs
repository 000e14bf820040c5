//! Steps on other threads than those that made a module, and on several at once.

use std::thread;

use crate::Outcome;
use crate::fixture::{Mlp, Subject, classifier, numbers, shared};
use osculant::optim::{NewtonCg, NewtonCgOptions};
use osculant_burn::{ModuleObjective, OutputsObjective};

const ROWS: usize = 64;

fn subject() -> Subject {
    classifier(&[64, 12, 10], ROWS)
}

fn objective(subject: &Subject, module: &Mlp) -> osculant::Result<OutputsObjective<Mlp>> {
    let factor = 1.0 / ROWS as f32;
    ModuleObjective::new(shared(), module)?.with_outputs([ROWS, 10], subject.loss, factor)
}

/// The numbers after three steps.
fn train(subject: &Subject, mut module: Mlp) -> osculant::Result<Vec<Vec<f32>>> {
    let mut objective = objective(subject, &module)?;
    let mut newton = NewtonCg::new(NewtonCgOptions::default())?;
    for _ in 0..3 {
        let (outputs, loss) = (subject.outputs(), subject.loss_of_outputs());
        let (stepped, report) = objective.step(&mut newton, module, outputs, loss);
        module = stepped;
        report?;
    }
    Ok(numbers(&module))
}

/// All get the bits of one thread alone, also where modules, batches and objectives were made elsewhere and have not been computed yet.
#[test]
fn threads_get_the_bits_of_one() -> Outcome {
    let start = numbers(&subject().module());
    let alone = train(&subject(), subject().module().with(&start))?;
    assert_ne!(alone, start);
    let made: Vec<(Subject, Mlp)> = (0..3)
        .map(|_| {
            let subject = subject();
            let module = subject.module().with(&start);
            (subject, module)
        })
        .collect();
    let threads = made
        .into_iter()
        .map(|(subject, module)| thread::spawn(move || train(&subject, module)));
    for thread in threads.collect::<Vec<_>>() {
        let found = thread.join().map_err(|_| "a thread panicked")??;
        assert_eq!(found, alone);
    }
    Ok(())
}

/// Another thread evaluates clones all the while.
#[test]
fn evaluations_elsewhere_see_whole_steps() -> Outcome {
    let subject = subject();
    let module = subject.module();
    let before = numbers(&module);
    let kept = module.clone();
    let mut outputs = subject.outputs();
    let expected: Vec<f32> = outputs(&kept).into_data().try_to_vec()?;
    let evaluation = thread::spawn(move || {
        (0..40).all(|_| {
            let z: Vec<f32> = outputs(&kept).into_data().try_to_vec().unwrap();
            z == expected
        })
    });
    let after = train(&subject, module)?;
    assert_ne!(before, after);
    assert!(evaluation.join().map_err(|_| "the thread panicked")?);
    Ok(())
}
