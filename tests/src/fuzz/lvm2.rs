//! Reports of LVM2's commands.

use vgship::group::lvm2::{parse_lvs, parse_pvs, parse_vgs};

/// Whatever a report says, its rows are plain data.
pub fn run(data: &[u8]) {
    if let Ok(lvs) = parse_lvs(data) {
        for lv in &lvs {
            let _ = (lv.usage(), lv.is_open());
        }
        assert_eq!(parse_lvs(data).expect("as before"), lvs);
        assert!(lvs.len() <= data.len(), "more LVs than letters");
    }
    if let Ok(vgs) = parse_vgs(data) {
        assert_eq!(parse_vgs(data).expect("as before"), vgs);
    }
    if let Ok(pvs) = parse_pvs(data) {
        assert_eq!(parse_pvs(data).expect("as before"), pvs);
    }
}

/// One row of each report.
pub fn seeds() -> Vec<Vec<u8>> {
    let report = |table: &str, row: &str| format!(r#"{{"report":[{{"{table}":[{row}]}}]}}"#);
    let vg = r#"{"vg_name":"datavg","vg_uuid":"3vQbZk","vg_extent_size":"4194304"}"#;
    let pv = r#"{"pv_name":"/dev/sdb","vg_name":"datavg","pv_size":"53684994048","pv_missing":""}"#;
    let lv = |name: &str, attr: &str, origin: &str, segtype: &str| {
        format!(
            r#"{{"vg_name":"datavg","lv_name":"{name}","lv_uuid":"qPkRg1","lv_attr":"{attr}","lv_size":"4194304",
            "origin":"{origin}","segtype":"{segtype}","seg_count":"1"}}"#
        )
    };
    let lvs = [
        lv("datalv", "-wi-ao----", "", "linear"),
        lv("snaplv", "swi-a-s---", "datalv", "linear"),
        lv("[pool_tdata]", "Twi-ao----", "", "thin-pool"),
        lv("idlelv", "-wi-------", "", "raid1"),
    ];
    let mut seeds = vec![report("vg", vg), report("pv", pv), report("lv", &lvs.join(","))];
    seeds.extend(lvs.iter().map(|row| report("lv", row)));
    seeds.into_iter().map(String::into_bytes).collect()
}
