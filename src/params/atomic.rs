//! Files and folders that appear whole or not at all: written beside their place, synced, then renamed into it.
use crate::{Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What a writing closure writes to.
pub type Writer = BufWriter<File>;

/// Writes `path` through a temporary file in the same directory: a reader sees the old file or the
/// whole new one, and a failure (`Error::Io`, naming `path`) leaves no file behind.
pub fn write_file<T>(path: &Path, write: impl FnOnce(&mut Writer) -> io::Result<T>) -> Result<T> {
    let dir = directory(path)?;
    let temp = temporary(0o666).tempfile_in(&dir).map_err(Error::io("create", path))?;
    let (file, temp) = temp.into_parts();
    let mut writer = BufWriter::with_capacity(1 << 16, file);
    let value = write(&mut writer).map_err(Error::io("write", path))?;
    let file = writer.into_inner().map_err(|e| e.into_error()).map_err(Error::io("write", path))?;
    file.sync_all().map_err(Error::io("write", path))?;
    drop(file);
    temp.persist(path).map_err(|e| e.error).map_err(Error::io("write", path))?;
    sync_dir(&dir);
    Ok(value)
}

/// A directory in the making: a hidden sibling of its destination until [`Folder::commit`] renames it
/// into place. Dropped before that, it leaves nothing behind.
#[derive(Debug)]
pub struct Folder {
    staging: TempDir,
    target: PathBuf,
    replaces: bool,
    parents: MadeParents,
}

impl Folder {
    /// Starts a folder that will stand at `out`; missing parents are made.
    ///
    /// A non-empty `out` is refused (`Error::Usage`) unless `overwrite`, and even then it must look like
    /// what fipk writes (a `config.json` or `config.toml` in it), so that a mistyped path costs nothing.
    pub fn create(out: &Path, overwrite: bool) -> Result<Self> {
        // A link is followed, so that what it points at is replaced and the link stays.
        let target = if out.exists() { fs::canonicalize(out).map_err(Error::io("open", out))? } else { out.into() };
        recover(&target)?;
        let replaces = refuse_or_replace(out, &target, overwrite)?;
        let dir = directory(&target)?;
        let parents = MadeParents::make(&dir)?;
        let staging = temporary(0o777).tempdir_in(&dir).map_err(Error::io("create", out))?;
        Ok(Self { staging, target, replaces, parents })
    }

    /// Where the files lie until the commit.
    pub fn path(&self) -> &Path {
        self.staging.path()
    }

    /// Where the folder will stand.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Writes one file of the folder; `name` may have sub-folders. Errors name its final place.
    pub fn write<T>(&self, name: &str, write: impl FnOnce(&mut Writer) -> io::Result<T>) -> Result<T> {
        let path = self.path().join(name);
        self.renamed(name, || {
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir).map_err(Error::io("create", &path))?;
            }
            write_file(&path, write)
        })
    }

    /// Copies a file byte for byte.
    pub fn copy(&self, from: &Path, name: &str) -> Result<()> {
        let mut source = File::open(from).map_err(Error::io("read", from))?;
        self.write(name, |w| io::copy(&mut source, w).map(drop))
    }

    /// Renames the folder into place; an old one is removed only once the new one stands.
    pub fn commit(self) -> Result<PathBuf> {
        // `parents` comes first so that on failure it is dropped last, when the staging folder is gone.
        let Self { mut parents, staging, target, replaces } = self;
        let dir = directory(&target)?;
        sync_dir(staging.path());
        let rename = |from: &Path| fs::rename(from, &target).map_err(Error::io("create", &target));
        if replaces {
            let old = former(&target)?;
            fs::rename(&target, &old).map_err(Error::io("replace", &target))?;
            if let Err(error) = rename(staging.path()) {
                if fs::rename(&old, &target).is_err() {
                    tracing::error!("the former {} is kept in {}", target.display(), old.display());
                }
                return Err(error);
            }
            sync_dir(&dir);
            if let Err(error) = fs::remove_dir_all(&old) {
                tracing::warn!("{}, which is no longer needed, cannot be removed: {error}", old.display());
            }
        } else {
            rename(staging.path())?;
        }
        let _gone = staging.keep();
        parents.keep();
        sync_dir(&dir);
        Ok(target)
    }

    /// Errors speak of where a file was to stand, not of where it was staged.
    fn renamed<T>(&self, name: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        run().map_err(|error| match error {
            Error::Io { doing, source, .. } => Error::Io { doing, path: self.target.join(name), source },
            other => other,
        })
    }
}

/// Where a folder that is being replaced stands until the new one does.
fn former(target: &Path) -> Result<PathBuf> {
    let mut name = std::ffi::OsString::from(".fipk-former-");
    name.push(target.file_name().unwrap_or_default());
    Ok(directory(target)?.join(name))
}

/// Mends what a kill in the middle of a commit left: the old folder comes back where no new one stands yet, and goes
/// where one does.
fn recover(target: &Path) -> Result<()> {
    let old = former(target)?;
    if !old.exists() {
        return Ok(());
    }
    if target.exists() {
        return fs::remove_dir_all(&old).map_err(Error::io("remove", &old));
    }
    tracing::warn!("{} is put back: whatever was to replace it was stopped half-way", target.display());
    fs::rename(&old, target).map_err(Error::io("create", target))
}

/// Whether there is a folder to replace; an error where it must not be.
fn refuse_or_replace(out: &Path, target: &Path, overwrite: bool) -> Result<bool> {
    let place = out.display().to_string();
    if !target.exists() {
        return Ok(false);
    }
    if !target.is_dir() {
        return Err(Error::usage(place, "wanted a folder to write to, got a file", "choose another --out"));
    }
    let mut entries = fs::read_dir(target).map_err(Error::io("read", out))?;
    if entries.next().is_none() {
        return Ok(false);
    }
    if !overwrite {
        return Err(Error::usage(
            place,
            "the folder exists and is not empty",
            "choose another --out or add --overwrite",
        ));
    }
    if !["config.json", "config.toml"].iter().any(|name| target.join(name).is_file()) {
        let what = "will not overwrite a folder with no config.json or config.toml in it";
        return Err(Error::usage(place, what, "it does not look like a model or a run: choose another --out"));
    }
    Ok(true)
}

/// The directories made for a folder, taken away again (while empty) if it never comes.
#[derive(Debug)]
struct MadeParents(Vec<PathBuf>);

impl MadeParents {
    fn make(dir: &Path) -> Result<Self> {
        let missing: Vec<_> = dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
        let mut made = Self(Vec::new());
        for dir in missing.into_iter().rev() {
            fs::create_dir(dir).map_err(Error::io("create", dir))?;
            made.0.push(dir.to_path_buf());
        }
        Ok(made)
    }

    fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for MadeParents {
    fn drop(&mut self) {
        for dir in self.0.iter().rev() {
            let _still_used = fs::remove_dir(dir);
        }
    }
}

/// The directory a path that is to be written lies in.
fn directory(path: &Path) -> Result<PathBuf> {
    if path.file_name().is_none() {
        let place = path.display().to_string();
        return Err(Error::usage(place, "not a path that can be written", "name a file or a folder"));
    }
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(dir.to_path_buf())
}

/// Hidden temporary names, easy to recognise after a kill; the umask decides on permissions, as for any other file.
fn temporary(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".fipk-partial-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

/// Makes a rename last through a power cut. File systems that cannot do this keep their own promises.
fn sync_dir(dir: &Path) {
    if let Ok(dir) = File::open(dir) {
        let _unsupported = dir.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn listing(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_file(&path, |w| w.write_all(b"first")).unwrap();
        let failed: Result<()> = write_file(&path, |w| {
            w.write_all(&[0; 100_000])?;
            Err(io::Error::other("pulled the plug"))
        });
        assert!(matches!(failed, Err(Error::Io { path: p, .. }) if p == path));
        assert_eq!((fs::read(&path).unwrap(), listing(dir.path())), (b"first".to_vec(), vec!["a.txt".to_string()]));
    }

    #[test]
    fn a_folder_is_seen_only_after_its_commit() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("runs/one");
        let folder = Folder::create(&out, false).unwrap();
        folder.write("sub/config.json", |w| w.write_all(b"{}")).unwrap();
        assert!(!out.exists());
        drop(folder);
        assert!(listing(dir.path()).is_empty(), "an abandoned folder and the parents made for it are gone");

        let folder = Folder::create(&out, false).unwrap();
        folder.write("config.json", |w| w.write_all(b"{}")).unwrap();
        folder.commit().unwrap();
        assert_eq!(listing(&dir.path().join("runs")), ["one"]);
        assert_eq!(listing(&out), ["config.json"]);
    }

    #[test]
    fn what_is_there_is_refused_or_replaced_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        Folder::create(&out, false).unwrap().commit().unwrap();

        fs::write(out.join("thesis.tex"), "years of work").unwrap();
        for overwrite in [false, true] {
            let refused = Folder::create(&out, overwrite).unwrap_err();
            assert!(matches!(refused, Error::Usage { .. }) && refused.to_string().contains("--out"), "{refused}");
        }

        fs::write(out.join("config.json"), "{}").unwrap();
        let folder = Folder::create(&out, true).unwrap();
        folder.write("new", |w| w.write_all(b"1")).unwrap();
        assert_eq!(listing(&out), ["config.json", "thesis.tex"], "the old one stands until the commit");
        folder.commit().unwrap();
        assert_eq!((listing(&out), listing(dir.path())), (vec!["new".to_string()], vec!["out".to_string()]));

        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(Folder::create(&file, true), Err(Error::Usage { .. })));
        assert!(matches!(Folder::create(&file.join("below"), false), Err(Error::Io { .. })));
    }
    #[test]
    fn a_commit_that_was_killed_half_way_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (out, aside) = (dir.path().join("out"), dir.path().join(".fipk-former-out"));
        // Killed between the two renames: only the old folder is whole, under its hidden name.
        fs::create_dir(&aside).unwrap();
        fs::write(aside.join("config.json"), "old").unwrap();
        assert!(matches!(Folder::create(&out, false), Err(Error::Usage { .. })), "it is back, and so refused");
        assert_eq!(listing(dir.path()), ["out"]);
        assert_eq!(fs::read(out.join("config.json")).unwrap(), b"old");

        // Killed after both: the new one stands, and the old one goes.
        fs::create_dir(&aside).unwrap();
        fs::write(aside.join("config.json"), "older").unwrap();
        let folder = Folder::create(&out, true).unwrap();
        assert_eq!(fs::read(out.join("config.json")).unwrap(), b"old");
        folder.write("config.json", |w| w.write_all(b"new")).unwrap();
        folder.commit().unwrap();
        assert_eq!(
            (listing(dir.path()), fs::read(out.join("config.json")).unwrap()),
            (vec!["out".into()], b"new".into())
        );
    }
}
