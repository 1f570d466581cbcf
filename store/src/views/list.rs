//! The views of a store: a list that is durable, and changed while the store runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use millrace_log::fs::{Fs, publish, read_all};
use millrace_model::{TenantId, read_varint, write_varint};
use millrace_views::{Origin, ViewDefinition, decode_definition, encode_definition};
use parking_lot::{Mutex, RwLock};

use super::cover::chunk;
use crate::error::{IoContext, StoreError};
use crate::paths::view_list;
use crate::shard::remove_temporary;

pub(super) const MAGIC: [u8; 4] = *b"MRVL";
pub(super) const VERSION: u8 = 1;
/// Beyond this it is no list.
const MAX_BYTES: u64 = 64 << 20;
/// Views of one tenant: each costs memory and time with every sample.
const VIEWS_MAX: usize = 200;

/// Why the list cannot be changed so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewListError {
    /// There is none of that name.
    #[error("there is no view {name:?}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// It is defined in a file, and changed there.
    #[error("the view {name:?} is defined in a file of views.files, and is changed there")]
    OfFile {
        /// The name.
        name: String,
    },
    /// A file defines what the API has defined.
    #[error(
        "the view {name:?} of a file is there already, defined through the API: drop one of them"
    )]
    OfApi {
        /// The name.
        name: String,
    },
    /// A file names a view twice.
    #[error("the view {name:?} is defined twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// Too many.
    #[error("a tenant has at most {limit} views")]
    TooMany {
        /// The bound.
        limit: usize,
    },
}

/// The views of all tenants. See `docs/views.md`.
#[derive(Debug)]
pub struct Views {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    /// By tenant, then by name.
    all: RwLock<Arc<Vec<Arc<ViewDefinition>>>>,
    changing: Mutex<()>,
    /// Wakes the thread that derives.
    wake: (Sender<()>, Receiver<()>),
}

impl Views {
    /// Reads the list in the directory of a store; there is none in a new one.
    ///
    /// # Errors
    ///
    /// [`StoreError::ViewDamaged`]; of the file system.
    pub fn open(fs: Arc<dyn Fs>, store: &Path) -> Result<Self, StoreError> {
        let path = view_list(store);
        remove_temporary(&*fs, store)?;
        let all = if fs.exists(&path).context("look for", &path)? {
            let bytes = read_all(&*fs, &path, MAX_BYTES).context("read", &path)?;
            decode(&bytes).map_err(|what| StoreError::ViewDamaged {
                path: path.clone(),
                what,
            })?
        } else {
            Vec::new()
        };
        Ok(Self {
            fs,
            path,
            all: RwLock::new(Arc::new(all)),
            changing: Mutex::new(()),
            wake: bounded(1),
        })
    }

    /// All views, by tenant and then by name.
    #[must_use]
    pub fn all(&self) -> Arc<Vec<Arc<ViewDefinition>>> {
        Arc::clone(&self.all.read())
    }

    /// Those of a tenant, in order of their names.
    #[must_use]
    pub fn of(&self, tenant: &TenantId) -> Vec<Arc<ViewDefinition>> {
        let all = self.all();
        let of = all.iter().filter(|view| view.tenant == *tenant);
        of.cloned().collect()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, tenant: &TenantId, name: &str) -> Option<Arc<ViewDefinition>> {
        let all = self.all();
        let found = all.iter().find(|v| v.tenant == *tenant && v.name == name);
        found.cloned()
    }

    /// Defines a view, or defines it anew. Durable, and in force, when it returns. Whether it is new.
    ///
    /// # Errors
    ///
    /// [`StoreError::ViewList`]; of the file system.
    pub fn put(&self, view: ViewDefinition) -> Result<bool, StoreError> {
        let changing = self.changing.lock();
        let mut all = Vec::clone(&self.all());
        let before = all.len();
        if let Some(of_file) = all
            .iter()
            .find(|v| same(v, &view) && v.origin != view.origin)
        {
            let name = of_file.name.clone();
            return Err(ViewListError::OfFile { name }.into());
        }
        all.retain(|of| !same(of, &view));
        let is_new = all.len() == before;
        all.push(Arc::new(view));
        self.commit(all)?;
        drop(changing);
        Ok(is_new)
    }

    /// Drops a view that the API has defined. Durable, and in force, when it returns; its files go a little
    /// later.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put).
    pub fn remove(&self, tenant: &TenantId, name: &str) -> Result<(), StoreError> {
        let changing = self.changing.lock();
        let Some(view) = self.get(tenant, name) else {
            let name = name.to_owned();
            return Err(ViewListError::Unknown { name }.into());
        };
        if view.origin == Origin::File {
            let name = name.to_owned();
            return Err(ViewListError::OfFile { name }.into());
        }
        let mut all = Vec::clone(&self.all());
        all.retain(|of| !same(of, &view));
        self.commit(all)?;
        drop(changing);
        Ok(())
    }

    /// Replaces the views of files by these.
    ///
    /// # Errors
    ///
    /// As [`put`](Self::put). All is then as it was.
    pub fn replace_files(&self, views: Vec<ViewDefinition>) -> Result<(), StoreError> {
        let changing = self.changing.lock();
        let mut all = Vec::clone(&self.all());
        all.retain(|view| view.origin == Origin::Api);
        for view in views {
            if let Some(there) = all.iter().find(|of| same(of, &view)) {
                let name = view.name;
                let error = match there.origin {
                    Origin::Api => ViewListError::OfApi { name },
                    Origin::File => ViewListError::Twice { name },
                };
                return Err(error.into());
            }
            all.push(Arc::new(view));
        }
        all.sort_by(|a, b| key(a).cmp(&key(b)));
        if *self.all() != all {
            self.commit(all)?;
        }
        drop(changing);
        Ok(())
    }

    fn commit(&self, mut all: Vec<Arc<ViewDefinition>>) -> Result<(), StoreError> {
        all.sort_by(|a, b| key(a).cmp(&key(b)));
        let of_tenants = all.chunk_by(|a, b| a.tenant == b.tenant);
        if of_tenants.map(<[_]>::len).max() > Some(VIEWS_MAX) {
            return Err(ViewListError::TooMany { limit: VIEWS_MAX }.into());
        }
        // IMPORTANT: durable before it is in force and acknowledged.
        publish(&*self.fs, &self.path, &encode(&all)).context("publish", &self.path)?;
        *self.all.write() = Arc::new(all);
        self.wake();
        Ok(())
    }

    /// One definition for each set of files, kept as long as any of the views that share it.
    pub(crate) fn to_derive(&self) -> Vec<Arc<ViewDefinition>> {
        let mut found: Vec<Arc<ViewDefinition>> = Vec::new();
        for view in self.all().iter() {
            match found.iter_mut().find(|of| of.id() == view.id()) {
                Some(of) => {
                    let longer = match (of.retention_ms, view.retention_ms) {
                        (Some(a), Some(b)) => b > a,
                        (Some(_), None) => true,
                        (None, _) => false,
                    };
                    if longer {
                        *of = Arc::clone(view);
                    }
                }
                None => found.push(Arc::clone(view)),
            }
        }
        found
    }

    /// The list as a backup has it.
    pub(crate) fn image(&self) -> Vec<u8> {
        encode(&self.all())
    }

    /// Says that there may be something to derive.
    pub(crate) fn wake(&self) {
        // Full: somebody has said so already.
        if self.wake.0.try_send(()).is_err() {
            tracing::trace!("the thread that derives is awake already");
        }
    }

    pub(super) fn woken(&self) -> &Receiver<()> {
        &self.wake.1
    }
}

fn key(view: &ViewDefinition) -> (&str, &str) {
    (view.tenant.as_str(), &view.name)
}

fn same(a: &ViewDefinition, b: &ViewDefinition) -> bool {
    key(a) == key(b)
}

pub(super) fn encode(all: &[Arc<ViewDefinition>]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&[VERSION, 0, 0, 0]);
    write_varint(&mut out, all.len() as u64);
    for view in all {
        encode_definition(&mut out, view);
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// Reads a list. What is wrong with it, if it is none.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Arc<ViewDefinition>>, &'static str> {
    let Some((body, stored)) = bytes.split_last_chunk::<4>() else {
        return Err("is cut short");
    };
    let pos = &mut 0;
    let header = chunk::<8>(body, pos).filter(|header| header[..4] == MAGIC);
    let header = header.ok_or("is no list of views")?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*stored) {
        return Err("checksum");
    }
    if header[4] != VERSION {
        return Err("was written by a later version");
    }
    let broken = "content breaks the format";
    let mut all = Vec::new();
    for _ in 0..read_varint(body, pos).ok_or(broken)? {
        all.push(Arc::new(decode_definition(body, pos).ok_or(broken)?));
    }
    if *pos != body.len() {
        return Err(broken);
    }
    Ok(all)
}
