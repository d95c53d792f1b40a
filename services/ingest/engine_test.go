package ingest

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/libs/fleet"
)

func TestParseEngine(t *testing.T) {
	for value, want := range map[string]Engine{
		"http://h:8000":     {URL: "http://h:8000", Events: "tcp://h:5557", Replay: "tcp://h:5558", Role: fleet.Both, Ranks: 1},
		"https://h/v1/":     {URL: "https://h", Events: "tcp://h:5557", Replay: "tcp://h:5558", Role: fleet.Both, Ranks: 1},
		"http://[::1]:8000": {URL: "http://[::1]:8000", Events: "tcp://[::1]:5557", Replay: "tcp://[::1]:5558", Role: fleet.Both, Ranks: 1},
		"http://h:8000,events=tcp://g:1,replay=tcp://g:9,role=prefill,ranks=8,key-file=/k": {URL: "http://h:8000",
			Events: "tcp://g:1", Replay: "tcp://g:9", Role: fleet.Prefill, Ranks: 8, KeyFile: "/k"},
		"http://h:8000,role=decode,sidecar=llm-d": {URL: "http://h:8000", Events: "tcp://h:5557", Replay: "tcp://h:5558",
			Role: fleet.Decode, Ranks: 1, Sidecar: fleet.LLMD},
		"http://h:8000,replay=none": {URL: "http://h:8000", Events: "tcp://h:5557", Role: fleet.Both, Ranks: 1},
		"http://h:8000,events=none": {URL: "http://h:8000", Role: fleet.Both, Ranks: 1},
	} {
		if got, err := ParseEngine(value); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\ngot  %+v (%v)\nwant %+v", value, got, err, want)
		}
	}
	for value, why := range map[string]string{
		"":                                   "http://HOST:PORT",
		"h:8000":                             "http://HOST:PORT",
		"http://:8000":                       "http://HOST:PORT",
		"http://user:secret@h:8000":          "key-file=",
		"http://h:8000,role=both,events":     "name=value",
		"http://h:8000,role=cache":           "prefill, decode or both",
		"http://h:8000,ranks=0":              "1 or more",
		"http://h:8000,sidecar=envoy":        "want llm-d",
		"http://h:8000,ranks=99999":          "1 to 1024",
		"http://h:8000,colour=blue":          "unknown option",
		"http://h:8000,events=tcp://*:5557":  "one to connect to",
		"http://h:8000,events=tcp://h:%d":    "percent",
		"http://h:8000,events=ipc:///x":      "tcp://HOST:PORT",
		"http://h:8000,ranks=2":              "ports",
		"http://h:8000,replay=tcp://h:5557":  "ports of their own",
		"http://h:8000,events=tcp://h:65536": "tcp://HOST:PORT",
	} {
		_, err := ParseEngine(value)
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want an error with %q", value, err, why)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
}

func TestTwoEnginesOnOneHost(t *testing.T) {
	a, _ := ParseEngine("http://h:8000")
	b, _ := ParseEngine("http://h:8001")
	err := distinct([]Engine{a, b})
	if err == nil {
		t.Fatal("two engines at one endpoint were accepted")
	}
	for _, part := range []string{"tcp://h:5557", "two ports", "--kv-events-config", `"replay_endpoint"`, "http://h:8001,events="} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
	b, _ = ParseEngine("http://h:8001,events=tcp://h:5567,replay=tcp://h:5568")
	if err := distinct([]Engine{a, b}); err != nil {
		t.Error(err)
	}
	if err := distinct([]Engine{a, a}); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("one engine twice: %v", err)
	}
}

func TestReadEngines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "engines.json")
	write := func(s string) {
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"engines":[
		{"name":"sim-0","model":"m","url":"http://127.0.0.1:1","events":"tcp://127.0.0.1:2","replay":"tcp://127.0.0.1:3","role":"both","dp_rank":0},
		{"name":"sim-1","model":"m","url":"http://127.0.0.1:1","events":"tcp://127.0.0.1:4","role":"decode","dp_rank":1}]}`)
	engines, err := ReadEngines(path)
	want := []Engine{
		{URL: "http://127.0.0.1:1", Name: "sim-0", Events: "tcp://127.0.0.1:2", Replay: "tcp://127.0.0.1:3", Role: fleet.Both, Ranks: 1},
		{URL: "http://127.0.0.1:1", Name: "sim-1", Events: "tcp://127.0.0.1:4", Role: fleet.Decode, Ranks: 1, Rank: 1},
	}
	if err != nil || !reflect.DeepEqual(engines, want) || distinct(engines) != nil {
		t.Errorf("got %+v (%v)", engines, err)
	}
	for _, bad := range []string{`{}`, `[`, `{"engines":[{"url":"nope"}]}`, `{"engines":[{"url":"http://h:1","events":"tcp://*:1"}]}`} {
		write(bad)
		if _, err := ReadEngines(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestRanks(t *testing.T) {
	e, err := ParseEngine("http://h:8000,replay=tcp://h:5657,ranks=3")
	if err != nil {
		t.Fatal(err)
	}
	all := e.ranks()
	if len(all) != 3 || all[2].events != "tcp://h:5559" || all[2].replay != "tcp://h:5659" ||
		all[2].name != "h:8000-r2" || all[2].id != fleet.EngineIDFromURL("h", 8000, 2) || all[2].of != 3 {
		t.Errorf("got %+v", all)
	}
}

func TestZeroValuesOfAnEngineAreUsable(t *testing.T) {
	given := []Engine{{URL: "http://127.0.0.1:8000", Events: "tcp://127.0.0.1:5557"}}
	engines, err := usable(given)
	if err != nil {
		t.Fatal(err)
	}
	if e := engines[0]; e.Ranks != 1 || e.Role != fleet.Both {
		t.Errorf("ranks %d, role %q: want 1 and both", e.Ranks, e.Role)
	}
	if given[0].Ranks != 0 {
		t.Error("the caller's engines were changed")
	}
	if _, err := usable([]Engine{{URL: "http://127.0.0.1:8000", Role: "writer"}}); err == nil {
		t.Error("an unknown role was accepted")
	}
}
