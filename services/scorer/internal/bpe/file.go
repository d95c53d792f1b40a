package bpe

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// file is tokenizer.json as Hugging Face's tokenizers library writes it. Members that are not named here are refused;
// of those that do not change ids, nothing is kept.
type file struct {
	Version       string          `json:"version"`
	Truncation    json.RawMessage `json:"truncation"`
	Padding       json.RawMessage `json:"padding"`
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    *component      `json:"normalizer"`
	PreTokenizer  *component      `json:"pre_tokenizer"`
	PostProcessor *component      `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         model           `json:"model"`
}

type addedToken struct {
	ID         uint32 `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

type model struct {
	Type                    string            `json:"type"`
	Dropout                 *float64          `json:"dropout"`
	UnkToken                *string           `json:"unk_token"` // cannot occur: every byte is a token
	ContinuingSubwordPrefix string            `json:"continuing_subword_prefix"`
	EndOfWordSuffix         string            `json:"end_of_word_suffix"`
	FuseUnk                 bool              `json:"fuse_unk"` // as UnkToken
	ByteFallback            bool              `json:"byte_fallback"`
	IgnoreMerges            bool              `json:"ignore_merges"`
	Vocab                   map[string]uint32 `json:"vocab"`
	Merges                  []mergeLine       `json:"merges"`
}

// mergeLine is "left right", or ["left", "right"] in newer files.
type mergeLine [2]string

// UnmarshalJSON reads either form.
func (m *mergeLine) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '[' {
		var parts []string
		if err := json.Unmarshal(data, &parts); err != nil || len(parts) != 2 {
			return errors.New("a merge is not a pair")
		}
		*m = mergeLine(parts)
		return nil
	}
	var line string
	if err := json.Unmarshal(data, &line); err != nil {
		return fmt.Errorf("read a merge: %w", err)
	}
	left, right, ok := strings.Cut(line, " ")
	if !ok || strings.Contains(right, " ") {
		return errors.New("a merge is not a pair")
	}
	*m = mergeLine{left, right}
	return nil
}

// component is a normalizer, pre-tokenizer or post-processor: its type, and all of it.
type component struct {
	kind string
	all  json.RawMessage
}

// UnmarshalJSON keeps the bytes: what they must hold depends on the type.
func (c *component) UnmarshalJSON(data []byte) error {
	var head struct {
		Type string `json:"type"`
	}
	err := json.Unmarshal(data, &head)
	c.kind, c.all = head.Type, bytes.Clone(data)
	return err
}

// read fills out with the members of the component, and refuses any that out does not have.
func (c *component) read(out any) error {
	if err := strict(bytes.NewReader(c.all), out); err != nil {
		return inexact("%s: %v", c.kind, err)
	}
	return nil
}

func strict(r io.Reader, out any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	return d.Decode(out)
}

func inexact(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, ErrInexact)...)
}

// Load reads tokenizer.json; path is that file, or the folder that it is in. Cost: about half a second and 60 MB for
// 150,000 tokens. An error wraps ErrInexact and names the part of the file that stands in the way, if it is that.
func Load(path string) (*Tokenizer, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "tokenizer.json")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load tokenizer: %w", err)
	}
	defer f.Close()
	t, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("load tokenizer %s: %w", path, err)
	}
	return t, nil
}

// Read is Load of an open file.
func Read(r io.Reader) (*Tokenizer, error) {
	var f file
	if err := strict(r, &f); err != nil {
		return nil, err
	}
	if f.Version != "1.0" {
		return nil, inexact("version %q", f.Version)
	}
	for name, value := range map[string]json.RawMessage{"truncation": f.Truncation, "padding": f.Padding} {
		if len(value) > 0 && string(value) != "null" {
			return nil, inexact("%s", name)
		}
	}
	t := &Tokenizer{}
	for _, step := range []func(*file) error{t.readNormalizer, t.readPreTokenizer, t.readModel, t.readAdded, t.readPostProcessor} {
		if err := step(&f); err != nil {
			return nil, err
		}
	}
	return t, nil
}
