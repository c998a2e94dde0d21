//! An object store of a cloud, or one that speaks like it, through the `object_store` crate. That
//! tries a request again for three minutes at most, far less than the day after which a collection of
//! garbage takes a writer for dead.

use std::io;
use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use tokio::runtime::{Builder, Runtime};
use vgship_snapshot::template::{ObjectError, ObjectInfo, Objects};

use super::StoreError;

/// Objects below a prefix of a bucket.
pub struct RemoteObjects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    runtime: Runtime,
}

impl RemoteObjects {
    /// Opens the bucket of a URL. Credentials, region and endpoint come from the environment, under
    /// the names that the provider's own tools use: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...
    pub fn open(url: &str) -> Result<RemoteObjects, StoreError> {
        let wrong = |why: String| StoreError::Url { url: url.to_owned(), why };
        let parsed = url::Url::parse(url).map_err(|it| wrong(it.to_string()))?;
        // Their option names are the variables' names in lower case.
        let options = std::env::vars().map(|(name, value)| (name.to_ascii_lowercase(), value));
        let (store, prefix) =
            object_store::parse_url_opts(&parsed, options).map_err(|it| wrong(it.to_string()))?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("templates")
            .enable_all()
            .build()
            .map_err(|it| wrong(it.to_string()))?;
        Ok(RemoteObjects { store: Arc::from(store), prefix, runtime })
    }

    fn path(&self, key: &str) -> Path {
        key.split('/').filter(|part| !part.is_empty()).fold(self.prefix.clone(), Path::join)
    }

    fn info(&self, found: &ObjectMeta) -> Option<ObjectInfo> {
        let parts = found.location.prefix_match(&self.prefix)?;
        let key = parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
        let modified = u64::try_from(found.last_modified.timestamp_millis()).unwrap_or(0);
        Some(ObjectInfo { key, len: found.size, modified })
    }
}

/// The crate's errors repeat their causes, and providers' answers are pages: the beginning tells.
const SAID_MAX: usize = 400;

fn io_error(error: &object_store::Error) -> io::Error {
    let kind = match error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
        object_store::Error::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    let text = error.to_string();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    io::Error::new(kind, &text[..text.floor_char_boundary(SAID_MAX)])
}

fn found<T>(result: object_store::Result<T>) -> Result<Option<T>, io::Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(io_error(&error)),
    }
}

impl Objects for RemoteObjects {
    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), ObjectError> {
        let payload = PutPayload::from(bytes.to_vec());
        let put = self.runtime.block_on(self.store.put(&self.path(key), payload));
        put.map(drop).map_err(|it| io_error(&it)).map_err(ObjectError::of("write", key))
    }

    fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<bool, ObjectError> {
        let payload = PutPayload::from(bytes.to_vec());
        let options = PutOptions::from(PutMode::Create);
        let put = self.runtime.block_on(self.store.put_opts(&self.path(key), payload, options));
        match put {
            Ok(_) => Ok(true),
            // A request that was sent again after its answer was lost finds its own object.
            Err(object_store::Error::AlreadyExists { .. }) => {
                Ok(self.get(key)?.is_some_and(|there| there == bytes))
            }
            Err(error) => Err(ObjectError::of("write", key)(io_error(&error))),
        }
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, ObjectError> {
        let path = self.path(key);
        let got = self.runtime.block_on(async { self.store.get(&path).await?.bytes().await });
        let got = found(got).map_err(ObjectError::of("read", key))?;
        Ok(got.map(|bytes| bytes.to_vec()))
    }

    fn get_range(&self, key: &str, offset: u64, len: u64) -> Result<Option<Vec<u8>>, ObjectError> {
        let Some(info) = self.head(key)? else { return Ok(None) };
        let end = offset.saturating_add(len).min(info.len);
        if offset >= end {
            return Ok(Some(Vec::new()));
        }
        let path = self.path(key);
        let options =
            GetOptions { range: Some(GetRange::Bounded(offset..end)), ..GetOptions::default() };
        let got = self
            .runtime
            .block_on(async { self.store.get_opts(&path, options).await?.bytes().await });
        let got = found(got).map_err(ObjectError::of("read", key))?;
        Ok(got.map(|bytes| bytes.to_vec()))
    }

    fn head(&self, key: &str) -> Result<Option<ObjectInfo>, ObjectError> {
        let head = self.runtime.block_on(self.store.head(&self.path(key)));
        let head = found(head).map_err(ObjectError::of("look at", key))?;
        Ok(head.and_then(|meta| self.info(&meta)))
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo)) -> Result<(), ObjectError> {
        let path = self.path(prefix);
        let listed = self.runtime.block_on(async {
            self.store.list(Some(&path)).try_collect::<Vec<ObjectMeta>>().await
        });
        let listed = listed.map_err(|it| io_error(&it)).map_err(ObjectError::of("list", prefix))?;
        let mut all: Vec<ObjectInfo> = listed.iter().filter_map(|it| self.info(it)).collect();
        all.sort_by(|one, other| one.key.split('/').cmp(other.key.split('/')));
        all.into_iter().for_each(each);
        Ok(())
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        let gone = self.runtime.block_on(self.store.delete(&self.path(key)));
        found(gone).map(drop).map_err(ObjectError::of("delete", key))
    }
}
