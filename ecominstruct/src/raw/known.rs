//! The raw data sets that are known, in order of their names.

use super::Split::{Dev, Test, Train};
use super::{Adapter, Read, Split};
use super::{
    advertisegen, amazon_pqa, bio, cosmetics, extract_gpt, fashion, flipkart, hint, home_depot, jddc, laptop_acos,
    polarity_reviews, pricerunner, product_matching, sentence_absa, shopdial, star_reviews, subjqa, wdc_pave,
};

const NONE: &str = "none stated";
const APACHE: &str = "Apache-2.0";
const MIT: &str = "MIT";

const fn adapter(
    name: &'static str,
    licence: &'static str,
    read: Read,
    files: &'static [(&'static str, Split)],
) -> Adapter {
    Adapter { name, licence, files, read }
}

/// All known raw data sets, in order of their names.
pub fn adapters() -> &'static [Adapter] {
    &ADAPTERS
}

static ADAPTERS: [Adapter; 24] = [
    adapter(
        "absa_tv_tshirt",
        MIT,
        sentence_absa::read_en,
        &[
            ("television_train.seg", Train),
            ("television_test.seg", Test),
            ("tshirt_train.seg", Train),
            ("tshirt_test.seg", Test),
        ],
    ),
    adapter("advertisegen", NONE, advertisegen::read, &[("dev.json", Dev)]),
    adapter("ae110k_attributes", APACHE, extract_gpt::read, &[("train.jsonl", Train), ("test.jsonl", Test)]),
    adapter(
        "amazon_pqa",
        "CDLA-Sharing-1.0",
        amazon_pqa::read,
        &[
            ("het_answer_train.tsv", Train),
            ("het_answer_dev.tsv", Dev),
            ("het_answer_test.tsv", Test),
            ("semi_data2text_train.tsv", Train),
            ("semi_data2text_dev.tsv", Dev),
            ("semi_data2text_test_seen.tsv", Test),
            ("semi_data2text_test_unseen.tsv", Test),
            ("semi_attribute_ranking_dev.tsv", Dev),
            ("epqa_dev.tsv", Dev),
        ],
    ),
    adapter("cosmetics_reviews", NONE, cosmetics::read, &[("Train_reviews.csv", Train)]),
    adapter("fashion_attributes", NONE, fashion::read, &[("styles_1k.csv", Train)]),
    adapter(
        "fewsum_amazon",
        MIT,
        star_reviews::read_fewsum,
        &[("train.csv", Train), ("val.csv", Dev), ("test.csv", Test)],
    ),
    adapter("flipkart_products", NONE, flipkart::read, &[("flipkart_1050.csv", Train)]),
    adapter(
        "hint3_curekart",
        "ODbL-1.0 and DbCL-1.0",
        hint::read,
        &[("curekart_train.csv", Train), ("curekart_test.csv", Test)],
    ),
    adapter("home_depot_search", NONE, home_depot::read, &[("train_20k.csv", Train)]),
    adapter("jd_title_ner", NONE, bio::read_jd, &[("dev_split.txt", Dev)]),
    adapter(
        "jddc_dialogues",
        "none stated; JDDC itself is for research only",
        jddc::read,
        &[("chat_sample.tsv", Train), ("dev_question.txt", Dev)],
    ),
    adapter(
        "laptop_acos",
        NONE,
        laptop_acos::read,
        &[("laptop_quad_train.tsv", Train), ("laptop_quad_dev.tsv", Dev), ("laptop_quad_test.tsv", Test)],
    ),
    adapter(
        "mg_shopdial",
        "none stated; data card: external, open access",
        shopdial::read,
        &[("MGShopDial.json", Train)],
    ),
    adapter("oa_mine_attributes", APACHE, extract_gpt::read, &[("train.jsonl", Train), ("test.jsonl", Test)]),
    adapter("online_shopping_reviews", NONE, polarity_reviews::read_shopping, &[("online_shopping_20k.csv", Train)]),
    adapter("pricerunner_categories", NONE, pricerunner::read, &[("pricerunner_20k.csv", Train)]),
    adapter(
        "product_matching_er",
        APACHE,
        product_matching::read,
        &[
            ("amazon_google/train.txt", Train),
            ("amazon_google/valid.txt", Dev),
            ("amazon_google/test.txt", Test),
            ("walmart_amazon/train.txt", Train),
            ("walmart_amazon/valid.txt", Dev),
            ("walmart_amazon/test.txt", Test),
            ("abt_buy/train.txt", Train),
            ("abt_buy/valid.txt", Dev),
            ("abt_buy/test.txt", Test),
        ],
    ),
    adapter(
        "subjqa",
        "as the UCSD Amazon review data",
        subjqa::read,
        &[
            ("electronics_train.csv", Train),
            ("electronics_dev.csv", Dev),
            ("electronics_test.csv", Test),
            ("grocery_train.csv", Train),
            ("grocery_dev.csv", Dev),
            ("grocery_test.csv", Test),
        ],
    ),
    adapter("taobao_ner", NONE, bio::read_taobao, &[("train.txt", Train), ("dev.txt", Dev), ("test.txt", Test)]),
    adapter("waimai_reviews", NONE, polarity_reviews::read_waimai, &[("waimai_10k.csv", Train)]),
    adapter("wdc_pave", NONE, wdc_pave::read, &[("train.jsonl", Train), ("test.jsonl", Test)]),
    adapter("womens_clothing_reviews", MIT, star_reviews::read_womens, &[("reviews_12k.csv", Train)]),
    adapter(
        "zh_product_absa",
        MIT,
        sentence_absa::read_zh,
        &[
            ("camera.train.txt", Train),
            ("camera.test.txt", Test),
            ("notebook.train.txt", Train),
            ("notebook.test.txt", Test),
            ("phone.train.txt", Train),
            ("phone.test.txt", Test),
            ("shampoo.train.txt", Train),
            ("shampoo.test.txt", Test),
        ],
    ),
];
