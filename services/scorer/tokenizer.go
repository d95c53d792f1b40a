package scorer

import (
	"fmt"
	"strings"

	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/scorer/internal/bpe"
)

// TokenizerUsage is the help of a flag whose values ParseTokenizer reads.
const TokenizerUsage = "`MODEL=PATH`: tokenizer.json, or its folder, of the model that engines name first; may be repeated. Completions are then tokenized here"

// Tokenizer is a model and where its tokenizer.json is.
type Tokenizer struct {
	Model string // the first that the engines list in /v1/models
	Path  string // the file or its folder
}

// ParseTokenizer reads MODEL=PATH.
func ParseTokenizer(value string) (Tokenizer, error) {
	model, path, ok := strings.Cut(value, "=")
	if !ok || model == "" || path == "" {
		return Tokenizer{}, fmt.Errorf("tokenizer %q is not MODEL=PATH", value)
	}
	return Tokenizer{Model: model, Path: path}, nil
}

// loadTokenizers loads all by pool. A file that cannot be done exactly is an error: it was asked for.
func loadTokenizers(list []Tokenizer) (map[string]*bpe.Tokenizer, error) {
	byPool := make(map[string]*bpe.Tokenizer)
	for _, t := range list {
		pool := fleet.PoolID(t.Model)
		if byPool[pool] != nil {
			return nil, fmt.Errorf("two tokenizers for model %s", t.Model)
		}
		loaded, err := bpe.Load(t.Path)
		if err != nil {
			return nil, fmt.Errorf("tokenizer of %s: %w", t.Model, err)
		}
		byPool[pool] = loaded
	}
	return byPool, nil
}
