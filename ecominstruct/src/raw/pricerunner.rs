//! `pricerunner_categories`: offers with the product they are for (cluster and its normalised name) and one of ten
//! categories.

use std::io;

use super::clean::clean;
use super::table::{Layout, table};
use super::{RawFile, Rows};
use crate::instruction::Lang;
use crate::record::{Meta, Product, Record};

const COLUMNS: [&str; 4] = ["product_title", "cluster_id", "cluster_label", "category_label"];

pub(super) fn read(file: &RawFile, rows: &mut Rows<'_>) -> io::Result<()> {
    table(file, Layout::Csv, COLUMNS, rows, |rows, line, [title, cluster, label, category]| {
        let cluster = format!("{}/cluster-{}", file.folder(), cluster.trim());
        let product = Product {
            meta: Meta { group: cluster.clone(), ..file.meta(line, Lang::En) },
            title: clean(title),
            short_title: Some(clean(label)),
            category: vec![clean(category)],
            cluster: Some(cluster),
            ..Product::default()
        };
        rows.push(line, Record::Product(product));
    })
}

#[cfg(test)]
mod tests {
    use crate::raw::tests::{bad, products};

    #[test]
    fn offers_of_one_cluster_share_group_and_short_title() {
        let text = "product_id,product_title,vendor_id,cluster_id,cluster_label,category_id,category_label\n\
                    1,lamp 5 w,2,7,Lamp 5W,3,Lamps\n2,,2,7,Lamp 5W,3,Lamps\n";
        let (found, report) = products(super::read, "pricerunner_categories/a.csv", text);
        assert_eq!(found[0].short_title.as_deref(), Some("Lamp 5W"));
        assert_eq!(found[0].meta.group, "pricerunner_categories/cluster-7");
        assert_eq!(found[0].cluster.as_deref(), Some("pricerunner_categories/cluster-7"));
        assert_eq!(
            bad(&report),
            ["pricerunner_categories/a.csv:3: wanted a title, a description or attributes, found none"]
        );
    }
}
