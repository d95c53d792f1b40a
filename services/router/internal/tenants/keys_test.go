package tenants

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func entry(key, tenant, more string) string {
	return fmt.Sprintf(`{"hash":%q,"tenant":%q%s}`, fleet.KeyHash(key), tenant, more)
}

func file(entries ...string) string { return `{"keys":[` + strings.Join(entries, ",") + `]}` }

func TestKeysAreFoundByTheirHash(t *testing.T) {
	var k Keys
	if got, err := k.Find("Bearer whatever", noon); got != nil || err != nil || k.Any() {
		t.Errorf("without keys: %v, %v", got, err)
	}
	k.Set(Shared, []fleet.APIKey{
		{Hash: fleet.KeyHash("one"), Tenant: "shared"}, {Hash: fleet.KeyHash("two"), Tenant: "b", Expires: noon},
		{Hash: fleet.KeyHash("three"), Tenant: "c"},
	})
	k.Set(File, []fleet.APIKey{{Hash: fleet.KeyHash("one"), Tenant: "filed"}})
	for _, c := range []struct {
		header, tenant string
		now            time.Time
		err            error
	}{
		{"Bearer one", "filed", noon, nil},
		{"bearer  three ", "c", noon, nil},
		{"Bearer two", "b", noon.Add(-1), nil},
		{"Bearer two", "", noon, ErrExpiredKey},
		{"Bearer " + fleet.KeyHash("one"), "", noon, ErrUnknownKey}, // who reads the store cannot use it
		{"Bearer on", "", noon, ErrUnknownKey},
		{"Bearer ", "", noon, ErrUnknownKey},
		{"one", "", noon, ErrUnknownKey},
		{"Basic one", "", noon, ErrUnknownKey},
		{"", "", noon, ErrNoKey},
	} {
		got, err := k.Find(c.header, c.now)
		if !errors.Is(err, c.err) || (got == nil) != (c.tenant == "") || got != nil && got.Tenant != c.tenant {
			t.Errorf("%q: %+v, %v", c.header, got, err)
		}
	}
	k.Set(File, nil)
	if got, _ := k.Find("Bearer one", noon); got.Tenant != "shared" {
		t.Errorf("the file's record still holds: %+v", got)
	}
	k.Set(Shared, nil)
	if _, err := k.Find("", noon); !errors.Is(err, ErrNoKey) {
		t.Errorf("without the last key everybody is let in: %v", err)
	}
	if n := testing.AllocsPerRun(100, func() { k.Find("Bearer one-of-a-usual-length-0123456789", noon) }); n > 1 {
		t.Errorf("%v allocations to find a key", n)
	}
}

func TestFilesOfKeysThatAreWrongAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	for name, c := range map[string]struct{ text, want string }{
		"a key instead of its hash": {`{"keys":[{"key":"sk-secret","tenant":"a"}]}`, `unknown field "key"`},
		"no hash":                   {`{"keys":[{"hash":"sk-secret","tenant":"a"}]}`, "no SHA-256"},
		"a tenant with dots":        {file(entry("k", "a.b", "")), "tenant"},
		"a huge priority":           {file(entry("k", "a", `,"priority":101`)), "priority"},
		"a negative budget":         {file(entry("k", "a", `,"tokens_per_minute":-1`)), "negative"},
		"twice":                     {file(entry("k", "a", ""), entry("k", "b", "")), "key 2 is there twice"},
		"half a file":               {file(entry("k", "a", ""))[:40], "unexpected EOF"},
		"too large":                 {`{"keys":[` + strings.Repeat(" ", maxKeyFile) + `]}`, "8 MiB"},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Read(path); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "sk-secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := Read(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// secret is a folder as Kubernetes mounts a Secret: links into a hidden folder that is swapped whole.
type secret struct {
	t    *testing.T
	path string
	n    int
}

func (s *secret) write(files map[string]string) {
	s.t.Helper()
	s.n++
	data := fmt.Sprintf("..version-%d", s.n)
	must := func(err error) {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Join(s.path, data), 0o700))
	for name, text := range files {
		must(os.WriteFile(filepath.Join(s.path, data, name), []byte(text), 0o600))
		if link := filepath.Join(s.path, name); s.n == 1 {
			must(os.Symlink(filepath.Join("..data", name), link))
		}
	}
	must(os.Symlink(data, filepath.Join(s.path, "..data_tmp")))
	must(os.Rename(filepath.Join(s.path, "..data_tmp"), filepath.Join(s.path, "..data")))
}

func TestASecretIsFollowed(t *testing.T) {
	s := secret{t: t, path: t.TempDir()}
	s.write(map[string]string{"a.json": file(entry("old", "a", "")), "b.json": file(entry("other", "b", `,"trusted":true`))})
	var k Keys
	var failed atomic.Int64
	tick := make(chan time.Time)
	if err := k.Follow(t.Context(), s.path, tick, slog.New(slog.DiscardHandler), func() { failed.Add(1) }); err != nil {
		t.Fatal(err)
	}
	who := func(key string) string {
		tick <- noon
		tick <- noon // the first one has been dealt with
		got, err := k.Find("Bearer "+key, noon)
		if err != nil {
			return err.Error()
		}
		return got.Tenant
	}
	if who("old") != "a" || who("other") != "b" || who("new") != ErrUnknownKey.Error() {
		t.Errorf("%s, %s, %s", who("old"), who("other"), who("new"))
	}
	s.write(map[string]string{"a.json": file(entry("new", "a", "")), "b.json": file(entry("other", "b", ""))})
	if who("old") != ErrUnknownKey.Error() || who("new") != "a" || failed.Load() != 0 {
		t.Errorf("%s, %s, %d failures", who("old"), who("new"), failed.Load())
	}
	s.write(map[string]string{"a.json": "{", "b.json": ""})
	if who("new") != "a" || failed.Load() == 0 {
		t.Errorf("a bad file: %s, %d failures", who("new"), failed.Load())
	}
	s.write(map[string]string{"a.json": file(), "b.json": file(entry("old", "c", ""))})
	if who("new") != ErrUnknownKey.Error() || who("old") != "c" {
		t.Errorf("mended: %s, %s", who("new"), who("old"))
	}
	if err := k.Follow(t.Context(), s.path+"/none", tick, slog.Default(), nil); err == nil {
		t.Error("a path that is not there at the start")
	}
}
