package capture

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// Plain values are what msgpack and JSON have in common, told apart as msgpack does: nil, bool, uint64, int64 (only
// negative), float64, string, []byte, []any and map[string]any.

var errPayload = errors.New("unreadable msgpack")

// maxDepth is how deep values may lie within each other; vLLM's extra keys lie five deep.
const maxDepth = 32

// unpack reads a payload, all of it, without knowing what it should hold.
func unpack(payload []byte) (any, error) {
	r := bytes.NewReader(payload)
	u := unpacker{r, msgpack.NewDecoder(r)}
	v, err := u.value(0)
	if err != nil {
		return nil, err
	}
	if r.Len() > 0 {
		return nil, fmt.Errorf("%w: %d bytes behind the value", errPayload, r.Len())
	}
	return v, nil
}

type unpacker struct {
	r *bytes.Reader
	d *msgpack.Decoder
}

func (u *unpacker) value(depth int) (any, error) {
	code, err := u.d.PeekCode()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errPayload, err)
	}
	switch {
	case depth > maxDepth:
		return nil, fmt.Errorf("%w: values lie deeper than %d", errPayload, maxDepth)
	case code == msgpcode.Nil:
		return nil, u.d.DecodeNil()
	case code == msgpcode.False || code == msgpcode.True:
		return u.d.DecodeBool()
	case code == msgpcode.Float || code == msgpcode.Double:
		return u.d.DecodeFloat64()
	case code == msgpcode.Uint64:
		return u.d.DecodeUint64()
	case msgpcode.IsFixedNum(code) || code >= msgpcode.Uint8 && code <= msgpcode.Int64:
		n, err := u.d.DecodeInt64()
		if n >= 0 {
			return uint64(n), err
		}
		return n, err
	case msgpcode.IsString(code):
		return u.text()
	case msgpcode.IsBin(code):
		return u.content()
	case msgpcode.IsFixedArray(code) || code == msgpcode.Array16 || code == msgpcode.Array32:
		return u.array(depth)
	case msgpcode.IsFixedMap(code) || code == msgpcode.Map16 || code == msgpcode.Map32:
		return u.pairs(depth)
	}
	return nil, fmt.Errorf("%w: code 0x%02x", errPayload, code)
}

func (u *unpacker) content() ([]byte, error) {
	n, err := u.d.DecodeBytesLen()
	if err != nil || n > u.r.Len() {
		return nil, fmt.Errorf("%w: cut short", errPayload)
	}
	raw := make([]byte, n)
	if _, err := io.ReadFull(u.r, raw); err != nil {
		return nil, fmt.Errorf("%w: %w", errPayload, err)
	}
	return raw, nil
}

func (u *unpacker) text() (string, error) {
	raw, err := u.content()
	if err == nil && !utf8.Valid(raw) {
		return "", fmt.Errorf("%w: a string that is no UTF-8", errPayload)
	}
	return string(raw), err
}

func (u *unpacker) array(depth int) (any, error) {
	n, err := u.d.DecodeArrayLen()
	if err != nil || n > u.r.Len() {
		return nil, fmt.Errorf("%w: cut short", errPayload)
	}
	out := make([]any, 0, n)
	for range n {
		v, err := u.value(depth + 1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (u *unpacker) pairs(depth int) (any, error) {
	n, err := u.d.DecodeMapLen()
	if err != nil || n > u.r.Len() {
		return nil, fmt.Errorf("%w: cut short", errPayload)
	}
	out := make(map[string]any)
	for range n {
		code, err := u.d.PeekCode()
		if err != nil || !msgpcode.IsString(code) { // vLLM has no others
			return nil, fmt.Errorf("%w: a key that is no string", errPayload)
		}
		key, err := u.text()
		if err != nil {
			return nil, err
		}
		if _, twice := out[key]; twice {
			return nil, fmt.Errorf("%w: a key that is there twice", errPayload)
		}
		if out[key], err = u.value(depth + 1); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// unmarshal is json.Unmarshal but keeps numbers as they are written.
func unmarshal(raw []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return d.Decode(v)
}

// fromJSON makes plain values of what unmarshal read: {"$bytes": hex} and {"$float": text} are bytes and a float.
func fromJSON(v any) (any, error) {
	switch v := v.(type) {
	case json.Number:
		return number(v.String())
	case []any:
		out := make([]any, len(v))
		for i := range v {
			var err error
			if out[i], err = fromJSON(v[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		return object(v)
	}
	return v, nil
}

func object(v map[string]any) (any, error) {
	if text, ok := v["$bytes"].(string); ok && len(v) == 1 {
		return hex.DecodeString(text)
	}
	if text, ok := v["$float"].(string); ok && len(v) == 1 {
		return strconv.ParseFloat(text, 64)
	}
	out := make(map[string]any, len(v))
	for key := range v {
		var err error
		if out[key], err = fromJSON(v[key]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func number(text string) (any, error) {
	if strings.ContainsAny(text, ".eE") {
		return strconv.ParseFloat(text, 64)
	}
	if strings.HasPrefix(text, "-") {
		return strconv.ParseInt(text, 10, 64)
	}
	return strconv.ParseUint(text, 10, 64)
}

// toJSON is the way back.
func toJSON(v any) any {
	switch v := v.(type) {
	case []byte:
		return map[string]string{"$bytes": hex.EncodeToString(v)}
	case float64:
		text := strconv.FormatFloat(v, 'g', -1, 64)
		switch {
		case math.IsNaN(v) || math.IsInf(v, 0):
			return map[string]string{"$float": text}
		case strings.ContainsAny(text, ".e"):
			return json.Number(text)
		}
		return json.Number(text + ".0")
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = toJSON(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for key := range v {
			out[key] = toJSON(v[key])
		}
		return out
	}
	return v
}

// differ says where two plain values differ first, and how; empty if nowhere.
func differ(path string, want, got any) string {
	switch w := want.(type) {
	case []any:
		g, ok := got.([]any)
		if !ok || len(w) != len(g) {
			break
		}
		for i := range w {
			if d := differ(fmt.Sprintf("%s[%d]", path, i), w[i], g[i]); d != "" {
				return d
			}
		}
		return ""
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			break
		}
		return differKeys(path, w, g)
	case []byte:
		if g, ok := got.([]byte); ok && bytes.Equal(w, g) {
			return ""
		}
	case float64:
		if g, ok := got.(float64); ok && (w == g || math.IsNaN(w) && math.IsNaN(g)) {
			return ""
		}
	default:
		if want == got {
			return ""
		}
	}
	return fmt.Sprintf("%s: want %s, got %s", path, brief(want), brief(got))
}

func differKeys(path string, want, got map[string]any) string {
	for _, key := range slices.Sorted(maps.Keys(want)) {
		g, ok := got[key]
		if !ok {
			return fmt.Sprintf("%s.%s: want %s, got nothing", path, key, brief(want[key]))
		}
		if d := differ(path+"."+key, want[key], g); d != "" {
			return d
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[key]; !ok {
			return fmt.Sprintf("%s.%s: want nothing, got %s", path, key, brief(got[key]))
		}
	}
	return ""
}

// brief shows a value in a few words.
func brief(v any) string {
	switch v := v.(type) {
	case []byte:
		return fmt.Sprintf("bytes %.80x", v)
	case []any:
		return fmt.Sprintf("an array of %d", len(v))
	case map[string]any:
		return fmt.Sprintf("an object of %d", len(v))
	case string:
		return fmt.Sprintf("%.80q", v)
	}
	return fmt.Sprintf("%v (%T)", v, v)
}
