package bpe

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

func (t *Tokenizer) readNormalizer(f *file) error {
	switch {
	case f.Normalizer == nil:
		return nil
	case f.Normalizer.kind == "NFC":
		t.nfc = true
		return f.Normalizer.read(&struct{ Type string }{})
	}
	return inexact("normalizer %q", f.Normalizer.kind)
}

// byteLevel is the component that writes bytes as characters: as pre-tokenizer and as post-processor, which only
// concerns offsets.
type byteLevel struct {
	Type           string `json:"type"`
	AddPrefixSpace bool   `json:"add_prefix_space"`
	TrimOffsets    bool   `json:"trim_offsets"`
	UseRegex       *bool  `json:"use_regex"` // true where it is not there
}

func (t *Tokenizer) readPreTokenizer(f *file) error {
	c := f.PreTokenizer
	if c == nil {
		return inexact("no pre_tokenizer")
	}
	expression, parts := gpt2, []*component{c}
	if c.kind == "Sequence" {
		var sequence struct {
			Type          string
			Pretokenizers []*component
		}
		if err := c.read(&sequence); err != nil {
			return fmt.Errorf("pre_tokenizer: %w", err)
		}
		parts = sequence.Pretokenizers
	}
	last := len(parts) - 1
	if last < 0 || last > 1 || slices.Contains(parts, nil) || parts[last].kind != "ByteLevel" || last == 1 && parts[0].kind != "Split" {
		return inexact("pre_tokenizer: neither ByteLevel nor one Split before ByteLevel")
	}
	var level byteLevel
	if err := parts[last].read(&level); err != nil {
		return fmt.Errorf("pre_tokenizer: %w", err)
	}
	switch {
	case level.AddPrefixSpace:
		return inexact("pre_tokenizer: ByteLevel with add_prefix_space")
	case (level.UseRegex == nil || *level.UseRegex) != (last == 0):
		return inexact("pre_tokenizer: ByteLevel with use_regex that is not as expected beside Split")
	case last == 1:
		var err error
		if expression, err = splitOf(parts[0]); err != nil {
			return fmt.Errorf("pre_tokenizer: %w", err)
		}
	}
	var ok bool
	if t.pattern, ok = patternOf(expression); !ok {
		return inexact("pre_tokenizer: Split with the expression %q", expression)
	}
	return nil
}

func splitOf(c *component) (expression string, err error) {
	var split struct {
		Type     string
		Pattern  struct{ Regex, String *string }
		Behavior string
		Invert   bool
	}
	if err := c.read(&split); err != nil {
		return "", err
	}
	if split.Pattern.Regex == nil || split.Behavior != "Isolated" || split.Invert {
		return "", inexact("Split by other than an expression, isolated")
	}
	return *split.Pattern.Regex, nil
}

func (t *Tokenizer) readModel(f *file) error {
	m := &f.Model
	switch {
	case m.Type != "BPE":
		return inexact("model %q", m.Type)
	case m.Dropout != nil && *m.Dropout != 0:
		return inexact("model: dropout")
	case m.ContinuingSubwordPrefix != "" || m.EndOfWordSuffix != "":
		return inexact("model: continuing_subword_prefix or end_of_word_suffix")
	case m.ByteFallback:
		return inexact("model: byte_fallback")
	}
	taken := make(map[uint32]bool, len(m.Vocab))
	for _, id := range m.Vocab {
		if taken[id] || id >= 1<<31 {
			return inexact("model: vocab: id %d, which is taken or too large", id)
		}
		taken[id] = true
	}
	for b, char := range alphabet() {
		id, ok := m.Vocab[string(char)]
		if !ok {
			return inexact("model: vocab: byte %#x is no token", b)
		}
		t.merges.bytes[b] = id
	}
	if err := t.readMerges(m); err != nil {
		return err
	}
	t.readWhole(m)
	return nil
}

func (t *Tokenizer) readMerges(m *model) error {
	t.merges.pairs = newPairs(len(m.Merges))
	for rank, line := range m.Merges {
		left, ok1 := m.Vocab[line[0]]
		right, ok2 := m.Vocab[line[1]]
		id, ok3 := m.Vocab[line[0]+line[1]]
		if !ok1 || !ok2 || !ok3 {
			return inexact("model: merge %d of tokens that vocab does not have", rank)
		}
		key := keyOf(left, right)
		s := t.merges.pairs.find(key)
		if s.key != 0 {
			return inexact("model: merge %d is there twice", rank)
		}
		*s = slot{key: key, merge: merge{rank: uint32(rank), id: id}}
	}
	return nil
}

// readWhole keeps the tokens that a piece of their text always becomes: with ignore_merges all, else those that the
// merges make of it.
func (t *Tokenizer) readWhole(m *model) {
	back := make(map[rune]byte, 256)
	for b, char := range alphabet() {
		back[char] = byte(b)
	}
	whole := make(map[string]uint32, len(m.Vocab))
	for text, id := range m.Vocab {
		raw := make([]byte, 0, len(text))
		for _, char := range text {
			if b, ok := back[char]; ok {
				raw = append(raw, b)
			}
		}
		if len(raw) != utf8.RuneCountInString(text) || len(raw) == 0 {
			continue // no piece has this text
		}
		if !m.IgnoreMerges {
			if ids := t.merges.encode(nil, string(raw)); len(ids) != 1 || ids[0] != id {
				continue
			}
		}
		whole[string(raw)] = id
	}
	t.merges.whole = whole
}

// readAdded gives ids as the library does: that of vocab, else the next free one. A file that says otherwise is refused.
func (t *Tokenizer) readAdded(f *file) error {
	next := uint32(len(f.Model.Vocab))
	for _, a := range f.AddedTokens {
		id, known := f.Model.Vocab[a.Content]
		if !known {
			id = next
		}
		switch {
		case a.Content == "":
			return inexact("added token %d is empty", a.ID)
		case a.ID != id:
			return inexact("added token %q has id %d, and %d by its place", a.Content, a.ID, id)
		case a.SingleWord || a.LStrip || a.RStrip:
			return inexact("added token %q with single_word, lstrip or rstrip", a.Content)
		case a.Normalized && t.nfc && !norm.NFC.IsNormalString(a.Content):
			return inexact("added token %q is changed by the normalizer", a.Content)
		case a.Normalized:
			t.later.put(a.Content, id)
		default:
			t.added.put(a.Content, id)
		}
		if cutWithin(a.Content) {
			return inexact("added token %q, in which long texts may be cut", a.Content)
		}
		next = max(next, id+1)
		t.special = append(t.special, a.Content)
	}
	return nil
}

func (t *Tokenizer) readPostProcessor(f *file) error {
	c := f.PostProcessor
	if c == nil {
		return nil
	}
	parts := []*component{c}
	if c.kind == "Sequence" {
		var sequence struct {
			Type       string
			Processors []*component
		}
		if err := c.read(&sequence); err != nil {
			return fmt.Errorf("post_processor: %w", err)
		}
		parts = sequence.Processors
	}
	frames := 0
	for _, part := range parts {
		var err error
		switch {
		case part == nil:
			err = errors.New("null")
		case part.kind == "ByteLevel":
			err = part.read(&byteLevel{})
		case part.kind == "TemplateProcessing" && frames == 0:
			frames++
			err = t.readTemplate(part)
		default:
			err = inexact("%q", part.kind)
		}
		if err != nil {
			return fmt.Errorf("post_processor: %w", err)
		}
	}
	return nil
}

// readTemplate reads what is put around one text; what is done with two does not concern us.
func (t *Tokenizer) readTemplate(c *component) error {
	type piece struct {
		SpecialToken, Sequence *struct {
			ID     string `json:"id"`
			TypeID int    `json:"type_id"`
		}
	}
	var template struct {
		Type          string
		Single        []piece
		Pair          any
		SpecialTokens map[string]struct {
			ID     string
			IDs    []uint32
			Tokens []string
		} `json:"special_tokens"`
	}
	if err := c.read(&template); err != nil {
		return err
	}
	seen := 0
	for _, p := range template.Single {
		switch {
		case p.Sequence != nil && p.SpecialToken == nil && p.Sequence.ID == "A":
			seen++
		case p.SpecialToken != nil && p.Sequence == nil:
			token, ok := template.SpecialTokens[p.SpecialToken.ID]
			if !ok {
				return inexact("TemplateProcessing: %q is not among special_tokens", p.SpecialToken.ID)
			}
			if seen == 0 {
				t.before = append(t.before, token.IDs...)
			} else {
				t.after = append(t.after, token.IDs...)
			}
		default:
			return inexact("TemplateProcessing: a piece that is neither a special token nor the text")
		}
	}
	if seen != 1 {
		return inexact("TemplateProcessing: the text %d times", seen)
	}
	return nil
}

// alphabet is the character that stands for each byte in the files: itself where it can be printed, else the next free
// one from U+0100 on.
func alphabet() [256]rune {
	var chars [256]rune
	free := rune(256)
	for b := range rune(256) {
		if '!' <= b && b <= '~' || '¡' <= b && b <= '¬' || '®' <= b && b <= 'ÿ' {
			chars[b] = b
		} else {
			chars[b] = free
			free++
		}
	}
	return chars
}
