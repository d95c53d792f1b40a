package capture

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// anyLine is a line in a form that can be changed.
type anyLine = map[string]any

func readLines(t testing.TB, file string) []anyLine {
	t.Helper()
	raw, err := os.ReadFile(goldenDir + file)
	if err != nil {
		t.Fatal(err)
	}
	var lines []anyLine
	for text := range bytes.Lines(raw) {
		var l anyLine
		if err := unmarshal(text, &l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	return lines
}

// verifyLines verifies lines as a file of their own and returns what was said before the summary.
func verifyLines(t testing.TB, lines []anyLine) (Result, string) {
	t.Helper()
	var raw bytes.Buffer
	for _, l := range lines {
		text, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		raw.Write(append(text, '\n'))
	}
	return verifyRaw(t, raw.Bytes())
}

func verifyRaw(t testing.TB, raw []byte) (Result, string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "lines.jsonl")
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	result, err := Verify(&out, []string{name})
	if err != nil {
		t.Fatal(err)
	}
	return result, out.String()
}

// dig finds a value: dig(line, "blocks", 0, "hash").
func dig(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			v = v.(map[string]any)[p]
		case int:
			v = v.([]any)[p]
		}
	}
	return v
}

// flip changes the last digit of a hexadecimal or decimal text.
func flip(text string) string {
	last := text[len(text)-1]
	if last == '0' {
		return text[:len(text)-1] + "1"
	}
	return text[:len(text)-1] + "0"
}

func flipAt(v any, path ...any) {
	parent, key := dig(v, path[:len(path)-1]...), path[len(path)-1]
	switch p := parent.(type) {
	case map[string]any:
		p[key.(string)] = flipped(p[key.(string)])
	case []any:
		p[key.(int)] = flipped(p[key.(int)])
	}
}

func flipped(v any) any {
	switch v := v.(type) {
	case json.Number:
		return json.Number(flip(v.String()))
	case string:
		if v == "" {
			return "00"
		}
		return flip(v)
	case bool:
		return !v
	case nil:
		return "0"
	}
	panic(fmt.Sprintf("cannot flip %T", v))
}

// Each change of a golden file is noticed, at the line and in the field where it was made.
func TestVerifyNoticesChanges(t *testing.T) {
	const (
		framesMap   = "frames_main-2026-08-17.jsonl"
		framesArray = "frames_v0.9.0.jsonl"
		flowInt     = "flow_main-2026-08-17_sha256_cbor_seed0_int.jsonl"
		flowBytes   = "flow_main-2026-08-17_sha256_cbor_seed42_bytes.jsonl"
		flowOld     = "flow_main-2025-09-27_sha256_cbor_seed0_int.jsonl"
		hashes      = "blockhash_main-2026-08-17.jsonl"
		hashesOld   = "blockhash_v0.10.0.jsonl"
		offload     = "offload_main-2026-08-17.jsonl"
		replayNew   = "replay_main-2026-08-17.jsonl"
		replayOld   = "replay_v0.9.2.jsonl"
	)
	each := func(change func(l anyLine)) func([]anyLine) []anyLine {
		return func(lines []anyLine) []anyLine { change(lines[0]); return lines }
	}
	drop := func(has string) func([]anyLine) []anyLine {
		return func(lines []anyLine) []anyLine {
			i := slices.IndexFunc(lines[1:], func(l anyLine) bool { return l[has] != nil })
			return slices.Delete(lines, 1+i, 2+i)
		}
	}
	step := func(n int, change func(l anyLine)) func([]anyLine) []anyLine {
		return func(lines []anyLine) []anyLine { change(lines[n]); return lines }
	}
	for _, c := range []struct {
		name, file string
		change     func([]anyLine) []anyLine
		says       string
	}{
		{"hash in decoded map", framesMap, each(func(l anyLine) { flipAt(l, "decoded", 1, 0, "block_hashes", 0) }), "lines.jsonl:1 stored_root_int_1block: decoded[1][0].block_hashes[0]: want"},
		{"hash in decoded array", framesArray, each(func(l anyLine) { flipAt(l, "decoded", 1, 0, 1, 0) }), "lines.jsonl:1 stored_root_int_1block: decoded[1][0][1][0]: want"},
		{"bytes in decoded", framesMap, step(6, func(l anyLine) {
			h := dig(l, "decoded", 1, 0, "block_hashes", 0).(map[string]any)
			h["$bytes"] = "00" + h["$bytes"].(string)[2:]
		}), "block_hashes[0]: want bytes"},
		{"integer for a float", framesMap, each(func(l anyLine) { l["decoded"].([]any)[0] = json.Number("1735689600") }), "decoded[0]: want"},
		{"field added to decoded", framesMap, each(func(l anyLine) { dig(l, "decoded", 1, 0).(map[string]any)["group_idx"] = nil }), "group_idx: want <nil>"},
		{"field missing in decoded", framesMap, each(func(l anyLine) { delete(dig(l, "decoded", 1, 0).(map[string]any), "lora_id") }), "lora_id: want nothing"},
		{"event missing in decoded", framesMap, each(func(l anyLine) { l["decoded"].([]any)[1] = []any{} }), "decoded[1]: want"},
		{"decoded missing", framesMap, each(func(l anyLine) { l["decoded"] = nil }), "decoded: want <nil>"},
		{"payload", framesMap, each(func(l anyLine) { flipAt(l, "frames", 2) }), "decoded[2]: want 0"},
		{"payload cut", framesMap, each(func(l anyLine) { p := dig(l, "frames", 2).(string); l["frames"].([]any)[2] = p[:len(p)-2] }), "unreadable msgpack"},
		{"seq", framesMap, each(func(l anyLine) { flipAt(l, "seq") }), "seq: want 1"},
		{"frame of seq", framesMap, each(func(l anyLine) { flipAt(l, "frames", 1) }), "seq: want 0"},
		{"topic", framesMap, each(func(l anyLine) { l["topic"] = "other" }), "topic: want"},
		{"publisher topic", framesMap, each(func(l anyLine) { l["publisher_topic"] = "other" }), "topic: want"},
		{"frame dropped", framesMap, each(func(l anyLine) { l["frames"] = l["frames"].([]any)[1:] }), "want 3 frames"},
		{"unknown shape", framesMap, each(func(l anyLine) { delete(l, "frames") }), "unknown shape"},

		{"preimage", hashes, step(3, func(l anyLine) { flipAt(l, "blocks", 0, "preimage") }), "blocks[0].preimage: want"},
		{"hash", hashes, step(3, func(l anyLine) { flipAt(l, "blocks", 0, "hash") }), "blocks[0].hash: want"},
		{"uint64", hashes, step(3, func(l anyLine) { flipAt(l, "blocks", 0, "uint64") }), "blocks[0].uint64: want"},
		{"uint64 missing", hashes, step(3, func(l anyLine) { delete(dig(l, "blocks", 0).(map[string]any), "uint64") }), "blocks[0].uint64: want"},
		{"none hash", hashes, step(3, func(l anyLine) { flipAt(l, "none_hash") }), "none_hash: want"},
		{"token", hashes, step(3, func(l anyLine) { flipAt(l, "token_ids", 0) }), "blocks[0].preimage: want"},
		{"extra keys", hashes, step(3, func(l anyLine) { dig(l, "blocks", 0).(map[string]any)["extra_keys"] = []any{"x"} }), "blocks[0].extra_keys: want"},
		{"block dropped", hashes, step(3, func(l anyLine) { l["blocks"] = l["blocks"].([]any)[1:] }), "full blocks"},
		{"algorithm", hashes, step(3, func(l anyLine) { l["algo"] = "md5" }), "unknown block hash algorithm"},
		{"integer hash", hashesOld, step(3, func(l anyLine) { flipAt(l, "blocks", 0, "hash_int") }), "blocks[0].hash_int: want"},
		{"digest", hashesOld, step(3, func(l anyLine) { flipAt(l, "blocks", 0, "digest") }), "blocks[0].digest: want"},
		{"encodable", hashesOld, step(3, func(l anyLine) { flipAt(l, "blocks", 0, "event_encodable") }), "event_encodable: want"},

		{"offloaded hash", offload, each(func(l anyLine) { flipAt(l, "request", "block_hashes", 1) }), "block_hashes[1]: want"},
		{"offloaded frame", offload, each(func(l anyLine) { flipAt(l, "decoded", 1, 0, "medium") }), "medium: want"},

		{"count", flowInt, each(func(l anyLine) {
			for id := range l["cached_after"].(map[string]any) {
				l["cached_after"].(map[string]any)[id] = json.Number("2")
				return
			}
		}), "want 2 copies, counted 1"},
		{"cached block missing", flowBytes, each(func(l anyLine) { clear(l["cached_after"].(map[string]any)) }), "want none, counted 1"},
		{"cached block of another group", flowInt, each(func(l anyLine) {
			for id := range l["cached_after"].(map[string]any) {
				delete(l["cached_after"].(map[string]any), id)
				l["cached_after"].(map[string]any)[id[:len(id)-1]+"1"] = json.Number("1")
				return
			}
		}), "cached_after: block"},
		{"request hash", flowInt, each(func(l anyLine) { flipAt(l, "request", "block_hashes", 2) }), "block_hashes[2]: want"},
		{"request token", flowBytes, step(1, func(l anyLine) { flipAt(l, "request", "token_ids", 0) }), "block_hashes[0]: want"},
		{"request salt", flowInt, step(36, func(l anyLine) { l["request"].(map[string]any)["cache_salt"] = "other" }), "block_hashes[0]: want"},
		{"request hash missing", flowOld, each(func(l anyLine) { l["request"].(map[string]any)["block_hashes"] = []any{} }), "full blocks"},
		{"usage", flowInt, each(func(l anyLine) { l["usage_after"] = json.Number("1.5") }), "usage_after"},
		{"frames of a step dropped", flowInt, step(9, func(l anyLine) { l["frames"] = nil }), "without frames"},
		{"published step dropped", flowInt, drop("frames"), "step: want"},
		{"published step silenced", flowInt, step(9, func(l anyLine) {
			l["frames"] = nil
			delete(l, "decoded")
			delete(l, "seq")
		}), "lines.jsonl:10 full_attention_13_blocks/9: cached_after"},
		{"step silenced, sequence", flowInt, step(9, func(l anyLine) {
			l["frames"] = nil
			delete(l, "decoded")
			delete(l, "seq")
		}), "seq: want 1, got 2"},
		{"steps exchanged", flowOld, func(l []anyLine) []anyLine { l[11], l[12] = l[12], l[11]; return l }, "step: want 11, got 12"},
		{"block size", flowInt, step(1, func(l anyLine) { l["hash_block_size"] = json.Number("8") }), "hash_block_size"},

		{"replies exchanged", replayNew, each(func(l anyLine) {
			m := l["reply_messages"].([]any)
			m[0], m[1] = m[1], m[0]
		}), "reply_messages[0]: seq: want"},
		{"reply dropped", replayOld, each(func(l anyLine) { l["reply_messages"] = slices.Delete(l["reply_messages"].([]any), 1, 2) }), "reply_messages: want"},
		{"reply payload", replayNew, each(func(l anyLine) { flipAt(l, "reply_messages", 0, 3) }), "not the bytes of the live message"},
		{"reply topic", replayNew, each(func(l anyLine) { flipAt(l, "reply_messages", 0, 1) }), "topic: want"},
		{"reply delimiter", replayNew, each(func(l anyLine) { flipAt(l, "reply_messages", 0, 0) }), "no empty frame"},
		{"reply of the other form", replayNew, each(func(l anyLine) {
			m := dig(l, "reply_messages", 1).([]any)
			l["reply_messages"].([]any)[1] = slices.Delete(m, 1, 2)
		}), "3 frames after ones of 4"},
		{"end dropped", replayOld, each(func(l anyLine) { m := l["reply_messages"].([]any); l["reply_messages"] = m[:len(m)-1] }), "reply_messages: want"},
		{"start", replayOld, each(func(l anyLine) { l["request_frames"].([]any)[1] = "0000000000000005" }), "reply_messages: want 2"},
		{"short start", replayOld, func(lines []anyLine) []anyLine {
			i := slices.IndexFunc(lines, func(l anyLine) bool { return l["case"] == "DEALER_short_4byte_request" })
			lines[i]["request_frames"].([]any)[1] = "00000005"
			return lines
		}, "DEALER_short_4byte_request: reply_messages: want 2"},
		{"buffer", replayNew, each(func(l anyLine) { l["buffer_steps"] = json.Number("5") }), "reply_messages: want 6"},
		{"socket", replayNew, each(func(l anyLine) { l["client_socket"] = "REQ" }), "reply_messages: want"},
		{"live message", replayNew, func(lines []anyLine) []anyLine { flipAt(lines[len(lines)-1], "live_messages", 4, 2); return lines }, "not the bytes of the live message"},
		{"live messages exchanged", replayNew, func(lines []anyLine) []anyLine {
			m := lines[len(lines)-1]["live_messages"].([]any)
			m[4], m[5] = m[5], m[4]
			return lines
		}, "live_messages[4]: seq 5 follows 3"},
		{"live messages missing", replayNew, func(lines []anyLine) []anyLine { return lines[:len(lines)-1] }, "no live messages"},

		{"ZMTP signature", "zmtp_raw.jsonl", each(func(l anyLine) { x := dig(l, "exchange", 1).(anyLine); x["hex"] = "00" + x["hex"].(string)[2:] }), "vllm: greeting"},
		{"ZMTP command", "zmtp_raw.jsonl", each(func(l anyLine) { dig(l, "exchange", 2).(anyLine)["hex"] = "" }), "client: no READY"},
		{"ZMTP frame size", "zmtp_raw.jsonl", each(func(l anyLine) { x := dig(l, "exchange", 5).(anyLine); s := x["hex"].(string); x["hex"] = s[:len(s)-2] }), "frame:"},
		{"ZMTP payload", "zmtp_raw.jsonl", each(func(l anyLine) {
			x := dig(l, "exchange", 5).(anyLine)
			x["hex"] = strings.Replace(x["hex"].(string), "93cb", "83cb", 1)
		}), "message 0"},
		{"ZMTP sequence", "zmtp_raw.jsonl", each(func(l anyLine) {
			x := dig(l, "exchange", 5).(anyLine)
			x["hex"] = strings.Replace(x["hex"].(string), "01080000000000000001", "01080000000000000009", 1)
		}), "seq 9 follows 0"},
		{"ZMTP subscription", "zmtp_raw.jsonl", step(1, func(l anyLine) { x := dig(l, "exchange", 4).(anyLine); x["hex"] = flip(x["hex"].(string)) }), "was not asked for"},
		{"ZMTP end of replay", "zmtp_raw.jsonl", step(3, func(l anyLine) {
			x := dig(l, "exchange", 5).(anyLine)
			s := x["hex"].(string)
			x["hex"] = s[:strings.LastIndex(s, "01000100")]
		}), "without an end"},
	} {
		lines := readLines(t, c.file)
		if before, said := verifyLines(t, lines); before.Mismatches > 0 {
			t.Fatalf("%s: %s", c.file, said)
		}
		result, said := verifyLines(t, c.change(lines))
		if result.Mismatches == 0 || !strings.Contains(said, c.says) {
			t.Errorf("%s: %+v, want %q in\n%.600s", c.name, result, c.says, said)
		}
	}
}

// Every prefix hit that vLLM wrote is checked: another number is noticed at each of them.
func TestVerifyNoticesEveryPrefixHit(t *testing.T) {
	prefills := 0
	for _, file := range goldenFiles(t, "flow_*.jsonl") {
		lines, want := readLines(t, filepath.Base(file)), 0
		for _, l := range lines {
			action := l["action"].(string)
			if m := prefixHit.FindStringSubmatchIndex(action); m != nil {
				l["action"] = action[:m[2]] + "9" + action[m[2]:]
				want++
			}
		}
		result, said := verifyLines(t, lines)
		if result.Mismatches != want || strings.Count(said, "prefix hit: want 9") != want {
			t.Errorf("%s: %d of %d prefills noticed\n%.600s", filepath.Base(file), result.Mismatches, want, said)
		}
		prefills += want
	}
	t.Logf("%d prefills", prefills)
	if prefills < 100 {
		t.Errorf("only %d prefills", prefills)
	}
}

// judged are fields of which every leaf must be as it is.
var judged = []string{"frames", "seq", "topic", "decoded", "cached_after", "none_hash", "reply_messages", "blocks"}

// A change of any leaf of a judged field is noticed; the leaves are drawn at random from a fixed seed.
func TestVerifyNoticesAnyLeaf(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	changed := 0
	for _, file := range goldenFiles(t, "*.jsonl") {
		base := filepath.Base(file)
		for range 4 {
			lines := readLines(t, base)
			n := rnd.IntN(len(lines))
			var leaves [][]any
			for _, field := range judged {
				if field == "cached_after" && lines[n]["stream"] == "full_report_mode" {
					continue // copies there are an upper bound
				}
				leaves = collectLeaves(leaves, []any{field}, lines[n][field])
			}
			if len(leaves) == 0 {
				continue
			}
			leaf := leaves[rnd.IntN(len(leaves))]
			if leaf[0] == "frames" && leaf[1] == 0 && lines[n]["topic"] == nil {
				continue // nothing else in the line tells the topic
			}
			flipAt(lines[n], leaf...)
			result, said := verifyLines(t, lines)
			if result.Mismatches == 0 || !strings.Contains(said, fmt.Sprintf("lines.jsonl:%d ", n+1)) {
				t.Errorf("%s:%d: change of %v not noticed: %.300s", base, n+1, leaf, said)
			}
			changed++
		}
	}
	t.Logf("%d leaves changed", changed)
}

func collectLeaves(leaves [][]any, path []any, v any) [][]any {
	switch v := v.(type) {
	case map[string]any:
		for key, x := range v {
			if key != "event_encodable" {
				leaves = collectLeaves(leaves, append(slices.Clone(path), key), x)
			}
		}
	case []any:
		for i, x := range v {
			leaves = collectLeaves(leaves, append(slices.Clone(path), i), x)
		}
	case nil:
	default:
		leaves = append(leaves, path)
	}
	return leaves
}

// Lines that are no recording are mismatches, one each, and harm no other line.
func TestVerifyRubbish(t *testing.T) {
	good, err := json.Marshal(readLines(t, "frames_v0.9.0.jsonl")[0])
	if err != nil {
		t.Fatal(err)
	}
	rubbish := []string{"{", "null", "[]", "7", `{}`, `{"frames":3}`, `{"frames":[],"decoded":null}`,
		`{"frames":["","0000000000000000","dd"],"seq":0,"decoded":[]}`,
		`{"frames":["","0000000000000000","zz"],"seq":0,"decoded":[]}`,
		`{"stream":"s","step":0,"action":"(prefix hit 0 tokens)","cached_after":{},"frames":null,"hash_block_size":0}`,
		`{"stream":"s","step":"x","action":"","cached_after":{"x":1}}`,
		`{"algo":"sha256","blocks":[],"token_ids":[1]}`,
		`{"algo":"sha256","blocks":[],"token_ids":[1],"hash_block_size":-4,"pythonhashseed":"0"}`,
		`{"reply_messages":[[]],"request_frames":[]}`, `{"live_messages":[["",""]]}`, `{"exchange":[]}`,
		`{"exchange":[{"dir":"up","hex":""}]}`}
	result, said := verifyRaw(t, []byte(strings.Join(rubbish, "\n")+"\n\n"+string(good)+"\n"))
	if result != (Result{Cases: len(rubbish) + 1, Mismatches: len(rubbish)}) || strings.Count(said, "\n") != len(rubbish)+1 {
		t.Errorf("%+v of %d\n%s", result, len(rubbish), said)
	}
}

func TestVerifyNotJudged(t *testing.T) {
	lines := readLines(t, "blockhash_v0.9.0.jsonl")[:3]
	lines[1]["algo"] = "builtin"
	result, said := verifyLines(t, lines)
	if result != (Result{Cases: 2, NotJudged: 1}) || !strings.HasSuffix(said, "verified 2 cases, 1 not judged, 0 mismatches\n") {
		t.Errorf("%+v\n%s", result, said)
	}
	if len(NotJudged()) == 0 {
		t.Error("the help says nothing of it")
	}
}

func TestVerifyMissingFile(t *testing.T) {
	if _, err := Verify(&strings.Builder{}, []string{filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("no error")
	}
}
