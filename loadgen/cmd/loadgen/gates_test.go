package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

func TestGatesWriteTheirFigures(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bench", "sim-gates.json")
	if err := runGates(t.Context(), "2.1.10,2.1.1", path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Schema int
		Gates  []struct {
			ID   string
			Pass bool
		}
	}
	if err := json.Unmarshal(data, &got); err != nil || got.Schema != 1 || len(got.Gates) != 7 {
		t.Fatalf("%s, %v", data, err)
	}
	for _, g := range got.Gates {
		if !g.Pass || g.ID != "2.1.1" && g.ID != "2.1.10" {
			t.Errorf("%+v", g)
		}
	}
	if err := runGates(t.Context(), "9", ""); err == nil {
		t.Error("a gate that is none is run")
	}
}
