//! Work on many items at once. Decides nothing.

/// Does `work` on every item, on up to `workers` threads, and gives the results in the items'
/// order, or the first error by that order. With one worker everything happens in order, on the
/// caller's thread.
pub fn spread<T: Sync, R: Send, E: Send>(
    items: &[T],
    workers: usize,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    if workers <= 1 || items.len() <= 1 {
        return items.iter().map(work).collect();
    }
    let share = items.len().div_ceil(workers);
    let part = |items: &[T]| items.iter().map(&work).collect::<Result<Vec<R>, E>>();
    std::thread::scope(|scope| {
        let (first, rest) = items.split_at(share);
        let others: Vec<_> =
            rest.chunks(share).map(|items| scope.spawn(move || part(items))).collect();
        let mut results = part(first);
        for other in others {
            let more = other.join().expect("the work does not panic");
            if let (Ok(all), Ok(_)) = (&mut results, &more) {
                all.extend(more.into_iter().flatten());
            } else if results.is_ok() {
                results = more;
            }
        }
        results
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_the_first_error_counts() {
        let items: Vec<u32> = (0..100).collect();
        for workers in [1, 2, 3, 7, 200] {
            let twice = spread(&items, workers, |item| Ok::<u32, ()>(item * 2)).unwrap();
            assert!(twice.iter().zip(&items).all(|(twice, item)| *twice == item * 2));
            assert_eq!(twice.len(), items.len());
            let failed =
                spread(&items, workers, |item| if *item < 30 { Ok(()) } else { Err(*item) });
            assert_eq!(failed, Err(30), "{workers} workers");
        }
    }
}
