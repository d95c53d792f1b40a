package capture

import (
	"path/filepath"
	"strings"
	"testing"
)

const goldenDir = "../../../../../libs/kvevent/testdata/golden/"

func goldenFiles(t testing.TB, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(goldenDir + pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("find %s: %v, %v", pattern, files, err)
	}
	return files
}

func TestVerifyGolden(t *testing.T) {
	var out strings.Builder
	result, err := Verify(&out, goldenFiles(t, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", out.String())
	if result.Mismatches > 0 || result.NotJudged > 0 {
		t.Errorf("%+v", result)
	}
	if result.Cases < 1200 {
		t.Errorf("only %d cases", result.Cases)
	}
}
