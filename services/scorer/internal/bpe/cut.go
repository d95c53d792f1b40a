package bpe

import "unicode"

// CutBetween says that any text may be divided between these two neighbours without a change of its ids: a letter or
// digit, of the scripts named here, before white space or a comma or full stop. In every expression a piece ends there
// and the next begins, whatever is around, and no look-ahead crosses it; no normalization joins the two; and no added
// token has both, as such a file is refused.
func CutBetween(before, after rune) bool {
	switch after {
	case ' ', '\n', '，', '。', '、':
	default:
		return false
	}
	switch {
	case before < 0x80:
		return before >= 0 && ascii[before] <= number && ascii[before] != other
	case before < 0x3041:
		return false
	case before <= 0x30FA, 0x4E00 <= before && before <= 0x9FFF, 0xAC00 <= before && before <= 0xD7A3: // kana, Han, Hangul
		return unicode.IsLetter(before)
	}
	return false
}

// cutWithin says that text has neighbours between which texts may be divided.
func cutWithin(text string) bool {
	before := rune(-1)
	for _, after := range text {
		if CutBetween(before, after) {
			return true
		}
		before = after
	}
	return false
}
