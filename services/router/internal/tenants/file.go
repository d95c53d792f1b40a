package tenants

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

const maxKeyFile = 8 << 20 // of all files together

// keyFile is the form of a file of keys.
type keyFile struct {
	Keys []fleet.APIKey `json:"keys"`
}

// Read loads the keys of a file {"keys":[...]}, or of every file in a folder whose name does not begin with a dot. It
// also returns the bytes that it read, which tell whether a later Read would find anything new.
func Read(path string) (keys []fleet.APIKey, raw []byte, err error) {
	files, err := filesOf(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read keys: %w", err)
	}
	seen := make(map[string]bool)
	for _, name := range files {
		data, err := readSome(name, maxKeyFile-len(raw))
		raw = append(append(raw, data...), 0)
		if err != nil {
			return nil, raw, fmt.Errorf("read keys: %w", err)
		}
		var one keyFile
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&one); err != nil {
			return nil, raw, fmt.Errorf("read keys in %s: %w", name, err)
		}
		for i := range one.Keys {
			if err := one.Keys[i].Check(); err != nil {
				return nil, raw, fmt.Errorf("read keys in %s: key %d: %w", name, i+1, err)
			}
			if seen[one.Keys[i].Hash] {
				return nil, raw, fmt.Errorf("read keys in %s: key %d is there twice", name, i+1)
			}
			seen[one.Keys[i].Hash] = true
		}
		keys = append(keys, one.Keys...)
	}
	return keys, raw, nil
}

// filesOf is the path itself, or what a folder shows. A mounted Secret is a folder of links into a hidden one that is
// swapped whole.
func filesOf(path string) (files []string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path) // sorted
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !e.IsDir() {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	return files, nil
}

func readSome(name string, most int) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, int64(most)+1))
	if err == nil && len(data) > most {
		err = errors.New("the files are larger than 8 MiB")
	}
	return data, err
}

// Follow reads the path now, and fails if it cannot; then at every tick until ctx ends, in a goroutine of its own. What
// cannot be read later leaves the keys as they are, is logged once and counted by failed each time.
func (k *Keys) Follow(ctx context.Context, path string, tick <-chan time.Time, log *slog.Logger, failed func()) error {
	keys, raw, err := Read(path)
	if err != nil {
		return err
	}
	k.Set(File, keys)
	go func() {
		told := ""
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick:
			}
			keys, now, err := Read(path)
			switch {
			case err != nil:
				if failed(); err.Error() != told {
					log.Error("API keys not read; those known stay in force", "err", err)
				}
				told = err.Error()
				continue
			case !bytes.Equal(now, raw):
				k.Set(File, keys)
				raw = now
				log.Info("API keys read again", "keys", len(keys))
			}
			told = ""
		}
	}()
	return nil
}
