//! `cargo xtask swiftshader`: a second software Vulkan driver to test on.
//!
//! SwiftShader's limits are close to the defaults of WebGPU (256 invocations, 10 storage buffers,
//! 256-byte alignment, no f16), so it catches what the more generous lavapipe lets pass. It is one
//! library, taken from Debian's `chromium-common` or from a browser that is installed.

use crate::apt;
use crate::shell::{self, Outcome};
use std::fs;
use std::path::{Path, PathBuf};

const LIBRARY: &str = "libvk_swiftshader.so";
const MANIFEST: &str = "vk_swiftshader_icd.json";
const BROWSERS: [&str; 4] = [
    "/usr/lib/chromium",
    "/usr/lib/chromium-browser",
    "/usr/lib64/chromium-browser",
    "/opt/google/chrome",
];

/// The driver's manifest, where it has been fetched before.
pub(crate) fn manifest() -> Option<PathBuf> {
    let folder = folder();
    is_complete(&folder).then(|| folder.join(MANIFEST))
}

/// Fetches the driver unless it is there, and returns its manifest.
pub(crate) fn fetch() -> Outcome<PathBuf> {
    if let Some(manifest) = manifest() {
        println!("SwiftShader is there: {}", manifest.display());
        return Ok(manifest);
    }
    let folder = folder();
    if std::env::consts::OS != "linux" {
        return Err(format!(
            "SwiftShader is fetched on Linux only; elsewhere tests run on the system's own adapters \
             (by hand: put a {MANIFEST} and its library into {})",
            folder.display()
        ));
    }
    if let Err(reason) = from_debian(&folder) {
        let browser = BROWSERS
            .map(PathBuf::from)
            .into_iter()
            .find(|browser| is_complete(browser));
        let Some(browser) = browser else {
            return Err(format!(
                "SwiftShader could not be fetched: {reason}\n\
                 By hand: every Chromium or Chrome for Linux ships {LIBRARY} and {MANIFEST}; copy \
                 both into {}",
                folder.display()
            ));
        };
        println!(
            "Taking SwiftShader from the browser in {}",
            browser.display()
        );
        place(&browser, &folder)?;
    }
    let manifest = folder.join(MANIFEST);
    println!("SwiftShader is ready: {}", manifest.display());
    Ok(manifest)
}

fn folder() -> PathBuf {
    shell::root().join("target").join("swiftshader")
}

fn is_complete(folder: &Path) -> bool {
    folder.join(LIBRARY).is_file() && folder.join(MANIFEST).is_file()
}

fn from_debian(folder: &Path) -> Outcome {
    let scratch = shell::scratch("chromium-common")?;
    let archive = apt::download("chromium-common", &scratch)?;
    let unpacked = scratch.join("unpacked");
    apt::unpack(&archive, &unpacked)?;
    place(&unpacked.join("usr/lib/chromium"), folder)?;
    fs::remove_dir_all(&scratch).map_err(|error| shell::about(&scratch, &error))
}

fn place(from: &Path, folder: &Path) -> Outcome {
    shell::make_folder(folder)?;
    shell::copy(&from.join(LIBRARY), &folder.join(LIBRARY))?;
    let original = from.join(MANIFEST);
    let text = fs::read_to_string(&original).map_err(|error| shell::about(&original, &error))?;
    let text = with_library_beside(&text)
        .ok_or_else(|| format!("{} names no library_path", original.display()))?;
    let manifest = folder.join(MANIFEST);
    fs::write(&manifest, text).map_err(|error| shell::about(&manifest, &error))
}

/// The manifest with its `library_path` set to the library in the manifest's own folder.
///
/// A path with a slash is taken relative to the manifest; a bare name would be searched for in the
/// system's library folders.
fn with_library_beside(manifest: &str) -> Option<String> {
    const KEY: &str = "\"library_path\"";
    let after_key = manifest.find(KEY)? + KEY.len();
    let opening = after_key + manifest[after_key..].find('"')?;
    let closing = opening + 1 + manifest[opening + 1..].find('"')?;
    Some(format!(
        "{}\"./{LIBRARY}{}",
        &manifest[..opening],
        &manifest[closing..]
    ))
}

#[cfg(test)]
mod tests {
    use super::with_library_beside;

    #[test]
    fn manifest_points_to_the_library_beside_it() {
        let expected =
            r#"{"ICD": {"library_path": "./libvk_swiftshader.so", "api_version": "1.0.5"}}"#;
        for path in [
            "libvk_swiftshader.so",
            "/usr/lib/chromium/libvk_swiftshader.so",
            "",
        ] {
            let manifest = expected.replace("./libvk_swiftshader.so", path);
            assert_eq!(with_library_beside(&manifest).as_deref(), Some(expected));
        }
    }

    #[test]
    fn manifest_without_a_library_is_refused() {
        assert_eq!(with_library_beside("{}"), None);
        assert_eq!(with_library_beside(r#"{"library_path": 3}"#), None);
    }
}
