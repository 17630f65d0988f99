//! A piece of a file, read without holding up an async thread.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags};
use tokio::sync::Semaphore;

use super::sealed::LOAD_PATIENCE;

/// Most bytes of one piece. They are copied, so that many slow readers must not hold much; larger
/// ones cost more time as well, since the allocator maps and unmaps them.
const PIECE: usize = 64 << 10;

/// Reads some of these bytes, of which there is at least one: at once where they are in memory, and
/// else off the async threads, `loads` of them at once. The end of the file is an error.
pub(super) async fn read(
    file: &Arc<File>,
    range: Range<u64>,
    loads: &Arc<Semaphore>,
) -> io::Result<Bytes> {
    let length = usize::try_from(range.end - range.start).unwrap_or(PIECE).min(PIECE);
    let mut piece = vec![0; length];
    let in_memory = {
        let mut slices = [IoSliceMut::new(&mut piece)];
        rustix::io::preadv2(file, &mut slices, range.start, ReadWriteFlags::NOWAIT)
    };
    let count = match in_memory {
        Ok(count) if count > 0 => count,
        // Not in memory, or the file system cannot tell. Some kernels say 0 instead.
        Ok(_) | Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
            let count;
            (piece, count) = wait_for_disk(file, piece, range.start, loads).await?;
            count
        }
        Err(error) => return Err(error.into()),
    };
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    piece.truncate(count);
    Ok(piece.into())
}

async fn wait_for_disk(
    file: &Arc<File>,
    mut piece: Vec<u8>,
    offset: u64,
    loads: &Arc<Semaphore>,
) -> io::Result<(Vec<u8>, usize)> {
    let (file, loads) = (Arc::clone(file), Arc::clone(loads));
    let read = async {
        // The semaphore is never closed; if it were, there would be no bound.
        let permit = loads.acquire_owned().await.map_err(io::Error::other)?;
        let read = tokio::task::spawn_blocking(move || {
            // For as long as the thread is held up, whoever has given it up meanwhile.
            let _permit = permit;
            let count = file.read_at(&mut piece, offset)?;
            Ok((piece, count))
        });
        read.await.map_err(io::Error::other)?
    };
    tokio::time::timeout(LOAD_PATIENCE, read).await.map_err(|_| io::ErrorKind::TimedOut)?
}
