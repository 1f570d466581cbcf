//! A vector that grows by pages, so that growing copies nothing and wastes at most one page.

const PAGE: usize = 1024;

/// Values by index.
#[derive(Debug)]
pub(super) struct Pages<T> {
    pages: Vec<Vec<T>>,
    len: usize,
}

impl<T> Pages<T> {
    pub(super) fn new() -> Self {
        Self {
            pages: Vec::new(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, value: T) {
        if self.len.is_multiple_of(PAGE) {
            // The first page grows as a vector does: most shards of a small system stay small.
            let room = if self.len == 0 { 16 } else { PAGE };
            self.pages.push(Vec::with_capacity(room));
        }
        let page = self.pages.last_mut().expect("a page was just added");
        page.push(value);
        self.len += 1;
    }

    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.pages.get(index / PAGE)?.get(index % PAGE)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.pages.get_mut(index / PAGE)?.get_mut(index % PAGE)
    }

    /// Memory of the pages themselves.
    pub(super) fn heap_bytes(&self) -> usize {
        let values: usize = self.pages.iter().map(Vec::capacity).sum();
        values * size_of::<T>() + self.pages.capacity() * size_of::<Vec<T>>()
    }
}
