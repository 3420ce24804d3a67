//! Files and folders that are either whole or absent, whatever happens while they are written: a full disk, a
//! kill, a power cut.
//!
//! Everything is written beside its final place under a temporary name, flushed to the disk, and renamed. A
//! temporary is named `.tmp-PID-N` and locked by its writer; a kill ends the lock and leaves the name, and
//! [`sweep`] removes it. Nothing here reads the clock.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// Writes a file that appears whole under `path` or not at all. An existing file is replaced and keeps its
/// permissions; a new one gets the process's usual ones. A symbolic link stays and its target is written. What
/// `content` reads may be the file being replaced, also through a memory map: the old bytes stay where they are.
///
/// # Errors
/// Whatever `content` returns, or a failed create, write, flush or rename; the error names `path`. The old file is
/// then still there, except after a failed last flush of the folder: the new one is whole but may not survive a
/// power cut.
pub fn write(path: &Path, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let target = resolve(path)?;
    let replaced = match fs::metadata(&target) {
        Ok(found) if !found.is_file() => return Err(refused("write", path, "there is something else than a file")),
        Ok(found) => Some(found.permissions()),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(Error::io("write", path)(e)),
    };
    let (file, temporary) = Temporary::file_beside(&target)?;
    if let Some(permissions) = replaced {
        file.set_permissions(permissions).map_err(Error::io("set permissions of", path))?;
    }
    let mut buffer = BufWriter::with_capacity(1 << 20, file);
    content(&mut buffer).map_err(Error::io("write", path))?;
    let file = buffer.into_inner().map_err(|e| Error::io("write", path)(e.into_error()))?;
    file.sync_all().map_err(Error::io("flush to disk", path))?;
    fs::rename(&temporary.path, &target).map_err(Error::io("replace", path))?;
    temporary.renamed();
    sync_folder(parent(&target))
}

/// A folder that appears whole under its final name, or not at all. Dropped without a commit, it is removed.
#[derive(Debug)]
pub struct Folder {
    temporary: Temporary,
    target: PathBuf,
    _lock: File,
}

impl Folder {
    /// An empty folder beside `target`, under a temporary name.
    ///
    /// # Errors
    /// No folder can be made there.
    pub fn new(target: &Path) -> Result<Self> {
        let target = resolve(target)?;
        let (lock, temporary) = Temporary::folder_beside(&target)?;
        Ok(Self { temporary, target, _lock: lock })
    }

    /// Where to put the files until the commit.
    pub fn path(&self) -> &Path {
        &self.temporary.path
    }

    /// Flushes every file and gives the folder its final name.
    ///
    /// # Errors
    /// There is already a folder with something in it, or a file, of that name; or a flush or rename fails. The
    /// final name is then as before and the new files are gone.
    pub fn commit(self) -> Result<()> {
        sync_tree(self.path())?;
        match fs::rename(self.path(), &self.target) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
                return Err(refused("create the folder", &self.target, "it exists and is not empty"));
            }
            Err(e) if e.kind() == ErrorKind::NotADirectory => {
                return Err(refused("create the folder", &self.target, "there is a file of that name"));
            }
            Err(e) => return Err(Error::io("create the folder", &self.target)(e)),
        }
        self.temporary.renamed();
        sync_folder(parent(&self.target))
    }

    /// As [`Folder::commit`], but an existing folder is exchanged for the new one in one step and then removed.
    ///
    /// # Errors
    /// As [`Folder::commit`], or the file system cannot exchange two folders (NFS); the old folder is then as before.
    pub fn commit_replacing(self) -> Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        if !self.target.is_dir() {
            return self.commit();
        }
        sync_tree(self.path())?;
        renameat_with(CWD, self.path(), CWD, &self.target, RenameFlags::EXCHANGE)
            .map_err(|e| Error::io("exchange with the new folder", &self.target)(e.into()))?;
        // The temporary name now holds the old folder, and dropping it removes that.
        sync_folder(parent(&self.target))
    }
}

/// Removes from `folder` the temporaries whose writer is gone, and says how many.
///
/// On a file system without locks nothing is removed. A temporary made in this very moment, and not locked yet,
/// can be removed too; its writer then fails with an error, so sweep at start-up, not while another one saves.
///
/// # Errors
/// The folder cannot be read, or a temporary cannot be removed.
pub fn sweep(folder: &Path) -> Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(folder).map_err(Error::io("read the folder", folder))? {
        let entry = entry.map_err(Error::io("read the folder", folder))?;
        let kind = entry.file_type().map_err(Error::io("read the folder", folder))?;
        if !is_temporary(&entry.file_name()) || !(kind.is_file() || kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        let Ok(file) = File::open(&path) else { continue };
        if file.try_lock().is_err() {
            continue;
        }
        let gone = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match gone {
            Ok(()) => removed += 1,
            // Its writer was not gone but just finishing.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("remove", &path)(e)),
        }
    }
    Ok(removed)
}

/// Whether a file or folder of this name is one of this module's temporaries: `.tmp-PID-N`.
pub fn is_temporary(name: &OsStr) -> bool {
    let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    name.to_str()
        .and_then(|name| name.strip_prefix(".tmp-"))
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(pid, n)| number(pid) && number(n))
}

/// A name to be removed unless the work on it succeeds.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn file_beside(target: &Path) -> Result<(File, Self)> {
        Self::beside(target, "create a temporary file in it", |path| {
            OpenOptions::new().write(true).create_new(true).open(path)
        })
    }

    fn folder_beside(target: &Path) -> Result<(File, Self)> {
        Self::beside(target, "create a temporary folder in it", |path| {
            fs::create_dir(path)?;
            File::open(path)
        })
    }

    fn beside(target: &Path, action: &'static str, make: impl Fn(&Path) -> io::Result<File>) -> Result<(File, Self)> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let folder = parent(target);
        loop {
            let n = COUNT.fetch_add(1, Ordering::Relaxed);
            // The name is short and does not contain the target's, which may be as long as names can be.
            let path = folder.join(format!(".tmp-{}-{n}", std::process::id()));
            match make(&path) {
                Ok(file) => {
                    // For `sweep` only: without locks, as on some network file systems, writing still works.
                    let _ = file.try_lock();
                    return Ok((file, Self { path }));
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::io(action, folder)(e)),
            }
        }
    }

    /// The name was renamed away. A process of the same number elsewhere (containers) may use it anew from now on.
    fn renamed(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.path).or_else(|_| fs::remove_dir_all(&self.path));
        }
    }
}

/// Where symbolic links lead, also to a place where nothing is yet.
fn resolve(path: &Path) -> Result<PathBuf> {
    let mut at = path.to_path_buf();
    // As many as Linux follows.
    for _ in 0..40 {
        if at.file_name().is_none() {
            return Err(refused("write", path, "the path does not end in a name"));
        }
        match fs::symlink_metadata(&at) {
            Ok(found) if found.is_symlink() => {
                let to = fs::read_link(&at).map_err(Error::io("follow the link", path))?;
                at = parent(&at).join(to);
            }
            Ok(_) => return Ok(at),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(at),
            Err(e) => return Err(Error::io("write", path)(e)),
        }
    }
    Err(refused("follow the link", path, "too many links"))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

fn sync_tree(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("read the folder", folder))? {
        let entry = entry.map_err(Error::io("read the folder", folder))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io("read the folder", folder))?;
        if kind.is_dir() {
            sync_tree(&path)?;
        } else if kind.is_file() {
            File::open(&path).and_then(|f| f.sync_all()).map_err(Error::io("flush to disk", &path))?;
        }
    }
    sync_folder(folder)
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> Result<()> {
    match File::open(folder).and_then(|f| f.sync_all()) {
        // Some network file systems know no such flush.
        Err(e) if e.kind() == ErrorKind::InvalidInput || e.kind() == ErrorKind::Unsupported => Ok(()),
        done => done.map_err(Error::io("flush the folder to disk", folder)),
    }
}

fn refused(action: &'static str, path: &Path, why: &'static str) -> Error {
    Error::io(action, path)(io::Error::other(why))
}

#[cfg(test)]
mod tests;
