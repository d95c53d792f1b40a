package oracle

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// slowBPE is a tokenizer.json of GPT-2's kind, read in the plainest way: the engine's own, which knows nothing of ours.
type slowBPE struct {
	vocab map[string]uint32
	ranks map[string]int // of merges, as the file spells them
	added map[string]uint32
	names *regexp.Regexp // of added tokens, the longest first
}

// writeTokenizer writes the small tokenizer that the scorer's tests have to a folder, with GPT-2's division into words,
// and returns the folder and an engine's reading of it.
func writeTokenizer(t *testing.T) (folder string, b *slowBPE) {
	t.Helper()
	data, err := os.ReadFile("../../services/scorer/internal/bpe/testdata/small.json")
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(data, []byte(`"pre_tokenizer":null`), []byte(`"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false}`), 1)
	folder = t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "tokenizer.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	var file struct {
		Added []struct {
			ID      uint32
			Content string
		} `json:"added_tokens"`
		Model struct {
			Vocab  map[string]uint32
			Merges []string
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	b = &slowBPE{vocab: file.Model.Vocab, ranks: map[string]int{}, added: map[string]uint32{}}
	for rank, merge := range file.Model.Merges {
		b.ranks[merge] = rank
	}
	var names []string
	for _, a := range file.Added {
		b.added[a.Content] = a.ID
		names = append(names, regexp.QuoteMeta(a.Content))
	}
	slices.SortFunc(names, func(x, y string) int { return len(y) - len(x) })
	b.names = regexp.MustCompile(strings.Join(names, "|"))
	return folder, b
}

// encode appends the ids of a text to dst.
func (b *slowBPE) encode(dst []uint32, text string) []uint32 {
	for text != "" {
		at := b.names.FindStringIndex(text)
		if at == nil {
			return b.words(dst, text)
		}
		dst = append(b.words(dst, text[:at[0]]), b.added[text[at[0]:at[1]]])
		text = text[at[1]:]
	}
	return dst
}

// word is GPT-2's expression but for `\s+(?!\S)`, which Go's package does not have.
var word = regexp.MustCompile(`^(?:'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{Z}\x{85}\x{0b}\p{L}\p{N}]+|[\s\p{Z}\x{85}\x{0b}]+)`)

func (b *slowBPE) words(dst []uint32, text string) []uint32 {
	for text != "" {
		n := len(word.FindString(text))
		last, width := utf8.DecodeLastRuneInString(text[:n])
		if unicode.IsSpace(last) && n < len(text) && n > width { // the last space is the next word's
			n -= width
		}
		dst, text = b.word(dst, text[:n]), text[n:]
	}
	return dst
}

// word merges the pair of the least rank until there is none.
func (b *slowBPE) word(dst []uint32, text string) []uint32 {
	var parts []string
	for i := range len(text) {
		parts = append(parts, string(letter(text[i])))
	}
	for {
		best, at := len(b.ranks), -1
		for i := range len(parts) - 1 {
			if rank, ok := b.ranks[parts[i]+" "+parts[i+1]]; ok && rank < best {
				best, at = rank, i
			}
		}
		if at < 0 {
			break
		}
		parts = slices.Replace(parts, at, at+2, parts[at]+parts[at+1])
	}
	for _, part := range parts {
		dst = append(dst, b.vocab[part])
	}
	return dst
}

// letter is the character by which such files write a byte: itself where it can be seen, else one from U+0100 on.
func letter(b byte) rune {
	seen := func(b byte) bool { return b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae }
	if seen(b) {
		return rune(b)
	}
	hidden := rune(0)
	for other := range b {
		if !seen(other) {
			hidden++
		}
	}
	return 0x100 + hidden
}
