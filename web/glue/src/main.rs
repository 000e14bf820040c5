//! What the program `wasm-bindgen --target web --no-typescript` does, in a fifth of the time to build: glue MODULE.wasm FOLDER

use std::process::ExitCode;
use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(module), Some(folder)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: glue MODULE.wasm FOLDER");
        return ExitCode::FAILURE;
    };
    let written = Bindgen::new()
        .input_path(&module)
        .typescript(false)
        .omit_default_module_path(false)
        .web(true)
        .and_then(|bindgen| bindgen.generate(&folder));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{module}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
