//! What it costs to ask a hub for a union instead of having it at hand.

use std::path::Path;
use std::time::Instant;

use layerd::cache::wire::{ImportReader, look_up_request};
use layerd::cache::{Cache as _, Documents, Form, Limits, LocalCache, Want};
use layerd::place::Place;
use tonic::codec::CompressionEncoding;

use super::client;
use crate::Scale;
use crate::harness::{Lab, neighbours};
use crate::samples::Unit;
use crate::section::Section;
use crate::turns::turns;

const LOCAL: &str = "in the same process";
const PLAIN: &str = "from a hub";
const ZSTD: &str = "from a hub, compressed";
const TIME: &str = "time";
const RECORDS: &str = "records";
const CONFIG: &str = "size of the config";
const LIMITS: Limits = Limits {
    records: 10_000,
    form: Form::Whole,
};

/// The same question, again and again.
pub async fn measure(scale: Scale) -> Section {
    let lab = Lab::new();
    let data = lab.folder("data");
    let records = if scale.quick { 1_000 } else { 10_000 };
    neighbours::publish(&data, records, usize::MAX).await;
    let rows = [LOCAL, PLAIN, ZSTD];
    let about = "A union of some 10,000 records of made-up builds, which has not changed since it \
         was asked for last, from the question to the config as a build gets it: from the engine \
         in the same process, and from a hub on loopback, with and without `grpc-encoding: zstd`; \
         six questions a round.";
    let mut section = Section::new("Look-up in a hub", about, &[TIME, RECORDS, CONFIG], &rows);
    ask(&lab, &data, scale, &mut section).await;
    let above = |row| section.median(row, TIME) - section.median(LOCAL, TIME);
    let above = above(PLAIN).min(above(ZSTD));
    section.goal("seconds above the engine in the same process", above, 0.05);
    section
}

async fn ask(lab: &Lab, data: &Path, scale: Scale, section: &mut Section) {
    let hub = lab.hub("one").data_dir(data).start().await;
    let plain = client::connect(hub.url()).await;
    let zstd = plain.clone().accept_compressed(CompressionEncoding::Zstd);
    let local = LocalCache::new(data);
    let wants = [Want::all_of(Place::default())];
    let mut order = vec![LOCAL, PLAIN];
    order.extend(turns(scale.many(), &[LOCAL, PLAIN, ZSTD]));
    for (at, row) in order.into_iter().enumerate() {
        let began = Instant::now();
        let import = if row == LOCAL {
            local
                .look_up(&wants, &LIMITS)
                .await
                .expect("an answer")
                .import()
        } else {
            let mut client = if row == ZSTD { &zstd } else { &plain }.clone();
            let answers = client.look_up(look_up_request(&wants, &LIMITS)).await;
            let mut answers = answers.expect("an answer").into_inner();
            let mut reader = ImportReader::default();
            while let Some(part) = answers.message().await.expect("the next part") {
                reader.take(part).expect("a part");
            }
            let whole = reader.finish(Place::default()).expect("an import");
            whole.map(|(import, _)| import)
        };
        let took = began.elapsed();
        let import = import.expect("there is something");
        let Documents::Whole(config) = &import.documents else {
            panic!("it was asked for whole")
        };
        // Both unite what is there when they are asked first.
        if at < 2 {
            continue;
        }
        section.push(row, TIME, took);
        section.figure(row, RECORDS, Unit::Count, import.records as f64);
        section.figure(row, CONFIG, Unit::Megabytes, config.len() as f64 / 1e6);
    }
}
