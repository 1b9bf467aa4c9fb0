//! A picture as PNG. Letters are drawn with a font of our own, so that it is the same on every machine, also on one that has
//! none.

use crate::error::{Error, Kind, Result};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

/// DejaVu Sans; other scripts than Latin, Greek and Cyrillic become boxes.
const FONT: &[u8] = include_bytes!("font/DejaVuSans-subset.ttf");
const FAMILY: &str = "DejaVu Sans";
/// Pixels for each unit of the drawing.
const FINE: f32 = 2.0;

/// The bytes of the picture, twice as large as the drawing.
///
/// # Errors
/// A text that is no drawing; one of no size.
pub fn png(svg: &str) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::fmt::Display| Error::new(Kind::File, format!("cannot draw the picture: {e}"));
    let mut options = Options { font_family: FAMILY.to_string(), ..Options::default() };
    let fonts = options.fontdb_mut();
    fonts.load_font_data(FONT.to_vec());
    fonts.set_sans_serif_family(FAMILY);
    let tree = Tree::from_str(svg, &options).map_err(|e| failed(&e))?;
    let size = tree.size().to_int_size().scale_by(FINE).ok_or_else(|| failed(&"it has no size"))?;
    let mut pixels = Pixmap::new(size.width(), size.height()).ok_or_else(|| failed(&"it is too large"))?;
    resvg::render(&tree, Transform::from_scale(FINE, FINE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|e| failed(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_drawn_without_a_font_of_the_machine() {
        let of = |text: &str| {
            let svg = format!(
                "<svg width=\"60\" height=\"20\" xmlns=\"http://www.w3.org/2000/svg\"><text x=\"2\" y=\"15\" \
                 font-family=\"sans-serif\" font-size=\"12\">{text}</text></svg>"
            );
            png(&svg).expect("drawn")
        };
        let drawn = of("clip");
        assert!(drawn.starts_with(b"\x89PNG\r\n\x1a\n"));
        assert_eq!(drawn[16..24], [0, 0, 0, 120, 0, 0, 0, 40], "width and height");
        assert!(drawn != of("") && drawn != of("lr") && drawn == of("clip"));
        png("no drawing").expect_err("no drawing");
    }
}
