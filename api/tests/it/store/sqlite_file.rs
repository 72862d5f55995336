//! SQLite's file: one process, and clear words when it cannot be used.

use std::{fs, path::Path};

use tieline_api::store::{OpenOptions, SqlStore, StoreError, open};
use tieline_openapi::ids::{ConnectionId, InstallationId};
use uuid::Uuid;

use super::fixture::event;

fn url(path: &Path) -> String {
    format!("sqlite://{}", path.display())
}

async fn refused(path: &Path) -> StoreError {
    match open(&url(path), OpenOptions::default()).await {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(e) => e,
    }
}

#[tokio::test]
async fn a_second_opener_is_refused_however_the_path_is_spelled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tieline.db");
    let store = open(&url(&path), OpenOptions::default()).await.unwrap();
    assert!(matches!(refused(&path).await, StoreError::InUse { .. }));
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(refused(&link).await, StoreError::InUse { .. }));
    let turned = folder.path().join(".").join("tieline.db");
    assert!(matches!(refused(&turned).await, StoreError::InUse { .. }));
    drop(store);
    open(&url(&path), OpenOptions::default()).await.unwrap();
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tieline.db");
    let id = InstallationId(Uuid::from_u128(7));
    let store = open(&url(&path), OpenOptions::default()).await.unwrap();
    store.installation(id).await.unwrap();
    drop(store);
    let store = open(&url(&path), OpenOptions::default()).await.unwrap();
    assert_eq!(store.installation(InstallationId(Uuid::from_u128(8))).await.unwrap(), id);
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tieline.db");
    SqlStore::open(&url(&path), OpenOptions::default()).await.unwrap().close().await;
    let whole = fs::read(&path).unwrap();

    // In the header, in a page of the schema, and cut off.
    let mut header = whole.clone();
    header[..16].fill(b'x');
    let mut page = whole.clone();
    page[4_096..12_288].fill(0x5a);
    let cut = whole[..whole.len() / 2].to_vec();
    for damaged in [header, page, cut, b"not a database, but longer than nothing".to_vec()] {
        fs::write(&path, &damaged).unwrap();
        let error = refused(&path).await;
        assert!(matches!(&error, StoreError::Unusable { .. }), "{error:?}");
        assert!(error.to_string().contains("damaged"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), damaged, "it was changed");
    }
    fs::write(&path, &whole).unwrap();
    open(&url(&path), OpenOptions::default()).await.unwrap();
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    use sqlx::{Connection, SqliteConnection};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.db");
    let mut other = SqliteConnection::connect(&format!("{}?mode=rwc", url(&path))).await.unwrap();
    sqlx::query("CREATE TABLE theirs (x)").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    let before = fs::read(&path).unwrap();
    let error = refused(&path).await;
    assert!(error.to_string().contains("another program's"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = refused(&folder.path().join("no/such.db")).await;
    assert!(
        matches!(&error, StoreError::Unusable { .. }) && error.to_string().contains("no cannot be opened"),
        "{error}"
    );
    let Err(error) = open("mysql://x", OpenOptions::default()).await else { panic!("opened") };
    assert!(error.to_string().contains("postgres://"), "{error}");
}

/// In a mount namespace of this thread's own, which ends with it.
#[test]
fn a_full_disk_is_told_and_nothing_is_lost() {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tieline.db");
    let none: Option<&str> = None;
    let mounted = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
        .and_then(|()| mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some("size=2m")));
    if let Err(e) = mounted {
        println!("skipped: a small disk can be mounted by root only ({e})");
        return;
    }
    // On this thread: SQLite's own threads come from it, and see its mounts.
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let store = open(&url(&path), OpenOptions::default()).await.unwrap();
        let id = InstallationId(Uuid::from_u128(7));
        store.installation(id).await.unwrap();
        let filler = folder.path().join("filler");
        let mut size = 2 << 20;
        while fs::write(&filler, vec![0; size]).is_err() {
            size -= 4_096;
        }
        let event = || tieline_api::store::EngineWrite::Event(event("x.y", ConnectionId(Uuid::nil())));
        let mut written = 0;
        let error = loop {
            match store.write_unclaimed(vec![event()]).await {
                Ok(()) => written += 1,
                Err(e) => break e,
            }
            assert!(written < 10_000, "the disk never filled up");
        };
        assert!(matches!(error, StoreError::Full), "{error:?}");
        assert_eq!(store.last_cursor().await.unwrap(), written);
        fs::remove_file(&filler).unwrap();
        store.write_unclaimed(vec![event()]).await.unwrap();
        assert_eq!(store.last_cursor().await.unwrap(), written + 1);
        assert_eq!(store.installation(InstallationId(Uuid::from_u128(8))).await.unwrap(), id);
    });
}
