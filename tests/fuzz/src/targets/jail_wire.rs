//! Packets between host and launcher: one packet has one meaning, and the other way round.

use loopd_jail::wire::{News, Order};

pub fn target(data: &[u8]) {
    if let Ok(order) = Order::decode(data) {
        assert_eq!(Order::decode(&order.encode()), Ok(order), "an order is not read as it is written");
    }
    if let Ok(news) = News::decode(data) {
        assert_eq!(news.encode(), data, "two packets of one meaning: {news:?}");
    }
}
