use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Child, Command};

use super::*;

fn put(path: &Path, text: &str) -> Result<()> {
    write(path, |w| w.write_all(text.as_bytes()))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs [`child`] in a process of its own, under a shell's settings.
fn spawn(setting: &str, work: &str, folder: &Path) -> Child {
    Command::new("sh")
        .args(["-c", &format!("{setting}; exec \"$0\" --exact durable::tests::child")])
        .arg(std::env::current_exe().unwrap())
        .env("ECOM_TEST_WORK", work)
        .env("ECOM_TEST_FOLDER", folder)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

/// The other half of the tests that call [`spawn`]; nothing by itself.
#[test]
fn child() {
    let (Ok(work), Some(folder)) = (std::env::var("ECOM_TEST_WORK"), std::env::var_os("ECOM_TEST_FOLDER")) else {
        return;
    };
    let folder = PathBuf::from(folder);
    match work.as_str() {
        "new" => put(&folder.join("file"), "x").unwrap(),
        "too large" => {
            let e = write(&folder.join("file"), |w| w.write_all(&vec![7; 4 << 20])).unwrap_err();
            assert!(matches!(&e, Error::Io { source, .. } if source.kind() == ErrorKind::FileTooLarge), "{e}");
            assert!(e.to_string().contains("file: cannot write: "), "{e}");
        }
        "for ever" => {
            for byte in (b'a'..=b'z').cycle() {
                write(&folder.join("file"), |w| w.write_all(&vec![byte; 1 << 20])).unwrap();
                let saved = Folder::new(&folder.join("folder")).unwrap();
                fs::write(saved.path().join("1"), [byte; 1000]).unwrap();
                fs::write(saved.path().join("2"), [byte; 1000]).unwrap();
                saved.commit_replacing().unwrap();
            }
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_file_is_new_or_replaced_and_nothing_else_remains() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.txt");
    put(&file, "one").unwrap();
    put(&file, "two, longer").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "two, longer");
    assert_eq!(names(folder.path()), ["a.txt"]);
}

#[test]
fn a_failure_in_the_middle_leaves_the_old_file_and_no_temporary() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.txt");
    put(&file, "old").unwrap();
    let e = write(&file, |w| {
        w.write_all(&vec![b'x'; 3 << 20])?;
        Err(ErrorKind::StorageFull.into())
    })
    .unwrap_err();
    assert_eq!(e.to_string(), format!("{}: cannot write: no storage space", file.display()));
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    assert_eq!(names(folder.path()), ["a.txt"]);
}

#[test]
fn a_full_disk_is_reported_and_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    put(&folder.path().join("file"), "old").unwrap();
    // Blocks of 512 or 1024 bytes; without the trap the kernel kills the process instead of failing its write.
    let status = spawn("trap '' XFSZ; ulimit -f 2048", "too large", folder.path()).wait().unwrap();
    assert!(status.success());
    assert_eq!(names(folder.path()), ["file"]);
    assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "old");
}

#[test]
fn new_files_follow_the_umask_and_replaced_ones_keep_their_mode() {
    for (umask, mode) in [("022", 0o644), ("077", 0o600), ("002", 0o664)] {
        let folder = tempfile::tempdir().unwrap();
        assert!(spawn(&format!("umask {umask}"), "new", folder.path()).wait().unwrap().success());
        let file = folder.path().join("file");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, mode);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(spawn(&format!("umask {umask}"), "new", folder.path()).wait().unwrap().success());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
    }
}

#[test]
fn links_stay_and_their_target_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("store")).unwrap();
    symlink("store/blob", at("link")).unwrap();
    symlink("link", at("link to link")).unwrap();
    put(&at("link to link"), "first").unwrap(); // the link dangles until now
    put(&at("link"), "second").unwrap();
    assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("store/blob"));
    assert_eq!(fs::read_to_string(at("store/blob")).unwrap(), "second");
    assert_eq!(names(&at("store")), ["blob"]);
    symlink("loop", at("loop")).unwrap();
    assert!(put(&at("loop"), "x").unwrap_err().to_string().ends_with("cannot follow the link: too many links"));
}

#[test]
fn odd_targets_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let message = |path: &Path| put(path, "x").unwrap_err().to_string();
    assert!(
        message(&at("none/file"))
            .ends_with("none: cannot create a temporary file in it: No such file or directory (os error 2)")
    );
    assert!(message(folder.path()).ends_with("cannot write: there is something else than a file"));
    assert!(message(Path::new("/dev/full")).ends_with("there is something else than a file"));
    assert!(message(&at("..")).ends_with("the path does not end in a name"));
    assert!(message(&at(&"n".repeat(300))).contains("cannot write: File name too long"));
    put(&at(&"n".repeat(255)), "x").unwrap();
}

#[test]
fn a_folder_appears_only_with_the_commit() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("step-1");
    let saved = Folder::new(&target).unwrap();
    fs::create_dir(saved.path().join("inner")).unwrap();
    put(&saved.path().join("inner/file"), "x").unwrap();
    assert!(!target.exists());
    assert!(names(folder.path()).iter().all(|n| is_temporary(n.as_ref())));
    saved.commit().unwrap();
    assert_eq!(fs::read_to_string(target.join("inner/file")).unwrap(), "x");

    let saved = Folder::new(&target).unwrap();
    put(&saved.path().join("other"), "y").unwrap();
    assert!(saved.commit().unwrap_err().to_string().ends_with("cannot create the folder: it exists and is not empty"));
    assert_eq!(names(&target), ["inner"]);

    let saved = Folder::new(&target).unwrap();
    put(&saved.path().join("other"), "y").unwrap();
    saved.commit_replacing().unwrap();
    assert_eq!(names(&target), ["other"]);

    put(&folder.path().join("file"), "z").unwrap();
    for commit in [Folder::commit, Folder::commit_replacing] {
        let saved = Folder::new(&folder.path().join("file")).unwrap();
        assert!(commit(saved).unwrap_err().to_string().ends_with("there is a file of that name"));
    }
    drop(Folder::new(&folder.path().join("never")).unwrap());
    assert_eq!(names(folder.path()), ["file", "step-1"]);
}

#[test]
fn sweep_removes_only_what_its_writer_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in [".tmp-1-2", ".tmp-x-2", ".tmp-1", "tmp-1-2", ".tmp-1-2-3", "kept"] {
        fs::write(at(name), "").unwrap();
    }
    fs::create_dir(at(".tmp-7-0")).unwrap();
    fs::write(at(".tmp-7-0/part"), "").unwrap();
    symlink("kept", at(".tmp-8-0")).unwrap();
    let live = Folder::new(&at("live")).unwrap();
    write(&at("written"), |w| {
        w.write_all(b"half")?;
        assert_eq!(sweep(folder.path()).unwrap(), 2);
        w.write_all(b" and half")
    })
    .unwrap();
    live.commit().unwrap();
    assert_eq!(
        names(folder.path()),
        [".tmp-1", ".tmp-1-2-3", ".tmp-8-0", ".tmp-x-2", "kept", "live", "tmp-1-2", "written"]
    );
    assert_eq!(fs::read_to_string(at("written")).unwrap(), "half and half");
}

#[test]
fn a_kill_at_any_moment_leaves_whole_files_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let mut writer = spawn(":", "for ever", folder.path());
        std::thread::sleep(std::time::Duration::from_millis(40 + 7 * round));
        writer.kill().unwrap();
        writer.wait().unwrap();
        if let Ok(bytes) = fs::read(folder.path().join("file")) {
            assert_eq!(bytes.len(), 1 << 20);
            assert!(bytes.iter().all(|&b| b == bytes[0]));
        }
        if folder.path().join("folder").exists() {
            let read = |name: &str| fs::read(folder.path().join("folder").join(name)).unwrap();
            assert_eq!(read("1"), read("2"));
            assert_eq!(read("1").len(), 1000);
        }
        sweep(folder.path()).unwrap();
        assert!(names(folder.path()).iter().all(|n| n == "file" || n == "folder"));
    }
    assert_eq!(names(folder.path()), ["file", "folder"]);
}
