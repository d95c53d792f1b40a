package enginemetrics_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/libs/enginemetrics"
)

func known(v float64) enginemetrics.Reading[float64] {
	return enginemetrics.Reading[float64]{Value: v, Known: true}
}

// v0.9.2: gpu_ names, no sleep state, one rank.
const v092 = `# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.75200001234e+09
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",enable_prefix_caching="True",gpu_memory_utilization="0.9",num_gpu_blocks="27216",num_gpu_blocks_override="None",prefix_caching_hash_algo="builtin",sliding_window="None"} 1.0
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m/One-7B"} 3.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m/One-7B"} 0.0
# TYPE vllm:gpu_cache_usage_perc gauge
vllm:gpu_cache_usage_perc{engine="0",model_name="m/One-7B"} 0.25
# TYPE vllm:gpu_prefix_cache_queries_total counter
vllm:gpu_prefix_cache_queries_total{engine="0",model_name="m/One-7B"} 9000.0
# TYPE vllm:gpu_prefix_cache_queries_created gauge
vllm:gpu_prefix_cache_queries_created{engine="0",model_name="m/One-7B"} 1.752e+09
# TYPE vllm:gpu_prefix_cache_hits_total counter
vllm:gpu_prefix_cache_hits_total{engine="0",model_name="m/One-7B"} 4000.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m/One-7B"} 9100.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m/One-7B"} 770.0
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="m/One-7B"} 0.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="m/One-7B"} 0.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m/One-7B"} 5.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m/One-7B"} 5.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m/One-7B"} 1.5
`

func TestOldNames(t *testing.T) {
	got := parse(t, v092)
	want := enginemetrics.Snapshot{
		Model: "m/One-7B", Running: known(3), Waiting: known(0), KVUsage: known(0.25),
		PrefixQueries: known(9000), PrefixHits: known(4000), PromptTokens: known(9100), GenerationTokens: known(770),
		Preemptions: known(0), ProcessStart: known(1.75200001234e9),
		Cache: enginemetrics.CacheConfig{
			BlockSize: 16, NumGPUBlocks: 27216, HashAlgorithm: "builtin",
			PrefixCaching: enginemetrics.Reading[bool]{Value: true, Known: true},
		},
	}
	if len(got) != 1 || got[0] != want {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
}

// main: ranks, both kinds of waiting, sleep, external cache, None for what is not known yet.
func current(ranks int) string {
	var b strings.Builder
	b.WriteString("# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1.79e+09\n")
	lines := []string{
		`cache_config_info{block_size="32",enable_prefix_caching="False",engine="%[1]d",kv_cache_size_tokens="8128",num_gpu_blocks="25%[1]d",prefix_caching_hash_algo="sha256_cbor",prefix_match_unit="None"} 1`,
		`num_requests_running{engine="%[1]d",model_name="m"} 1%[1]d`,
		`num_requests_waiting{engine="%[1]d",model_name="m"} 5`,
		`num_requests_waiting_by_reason{engine="%[1]d",model_name="m",reason="capacity"} 4`,
		`num_requests_waiting_by_reason{engine="%[1]d",model_name="m",reason="deferred"} 1`,
		`kv_cache_usage_perc{engine="%[1]d",model_name="m"} 0.5`,
		`prefix_cache_queries_total{engine="%[1]d",model_name="m"} 100`,
		`prefix_cache_hits_total{engine="%[1]d",model_name="m"} 0`,
		`external_prefix_cache_queries_total{engine="%[1]d",model_name="m"} 77`,
		`engine_sleep_state{engine="%[1]d",model_name="m",sleep_state="awake"} 0`,
		`engine_sleep_state{engine="%[1]d",model_name="m",sleep_state="weights_offloaded"} 1`,
		`engine_sleep_state{engine="%[1]d",model_name="m",sleep_state="discard_all"} 1`,
	}
	for _, line := range lines {
		for rank := ranks - 1; rank >= 0; rank-- {
			fmt.Fprintf(&b, "vllm:"+line+"\n", rank)
		}
	}
	return b.String()
}

func TestRanksOfTheCurrentVersion(t *testing.T) {
	got := parse(t, current(12))
	if len(got) != 12 {
		t.Fatalf("%d snapshots, want 12", len(got))
	}
	s := got[11]
	want := enginemetrics.Snapshot{
		Rank: 11, Model: "m", Running: known(111), Waiting: known(5), KVUsage: known(0.5),
		PrefixQueries: known(100), PrefixHits: known(0), Sleep: enginemetrics.DiscardAll, ProcessStart: known(1.79e9),
		Cache: enginemetrics.CacheConfig{
			BlockSize: 32, NumGPUBlocks: 2511, CacheTokens: 8128, HashAlgorithm: "sha256_cbor",
			PrefixCaching: enginemetrics.Reading[bool]{Known: true},
		},
	}
	if s != want {
		t.Fatalf("got  %+v\nwant %+v", s, want)
	}
	for i, s := range got {
		if s.Rank != i {
			t.Fatalf("snapshot %d has rank %d", i, s.Rank)
		}
	}
}

func TestWaitingIsTheSumOfItsReasonsWhereTheTotalIsMissing(t *testing.T) {
	var kept []string
	for line := range strings.Lines(current(2)) {
		if !strings.HasPrefix(line, "vllm:num_requests_waiting{") {
			kept = append(kept, line)
		}
	}
	for _, s := range parse(t, strings.Join(kept, "")) {
		if s.Waiting != known(5) {
			t.Fatalf("rank %d waits %+v, want 5", s.Rank, s.Waiting)
		}
	}
}

func TestBothNamesAtOnceAreOneFigure(t *testing.T) {
	s := parse(t, "vllm:kv_cache_usage_perc 0.5\nvllm:gpu_cache_usage_perc 0.25\n"+
		"vllm:gpu_prefix_cache_hits_total 8\nvllm:prefix_cache_hits_total 9\n")[0]
	if s.KVUsage != known(0.5) || s.PrefixHits != known(9) {
		t.Fatalf("usage %+v, hits %+v", s.KVUsage, s.PrefixHits)
	}
}

func TestAbsentIsNotZero(t *testing.T) {
	s := parse(t, `vllm:num_requests_running{engine="0"} 0`+"\n"+`vllm:num_requests_waiting{engine="0"} NaN`+"\n"+
		`vllm:prompt_tokens_total{engine="0"} -1`+"\n"+
		`vllm:cache_config_info{engine="0",block_size="None",num_gpu_blocks="None",enable_prefix_caching="None",prefix_caching_hash_algo="None"} 1`+"\n")[0]
	want := enginemetrics.Snapshot{Running: known(0)}
	if s != want {
		t.Fatalf("got %+v\nwant %+v", s, want)
	}
}

func TestProcessWideFiguresReachEveryRank(t *testing.T) {
	got := parse(t, "process_start_time_seconds 5\n"+`vllm:cache_config_info{block_size="16"} 1`+"\n"+
		`vllm:num_requests_running{engine="0"} 1`+"\n"+`vllm:num_requests_running{engine="1"} 2`+"\n")
	if len(got) != 2 {
		t.Fatalf("%d snapshots, want 2", len(got))
	}
	for _, s := range got {
		if s.Cache.BlockSize != 16 || s.ProcessStart != known(5) {
			t.Fatalf("rank %d: %+v", s.Rank, s)
		}
	}
}

func TestOpenMetricsCountersAreRead(t *testing.T) {
	s := parse(t, "# TYPE vllm:prompt_tokens counter\nvllm:prompt_tokens_total 12\n")[0]
	if s.PromptTokens != known(12) {
		t.Fatalf("prompt tokens %+v", s.PromptTokens)
	}
}

func TestRefusals(t *testing.T) {
	var ranks strings.Builder
	for i := range enginemetrics.MaxRanks + 1 {
		fmt.Fprintf(&ranks, "vllm:num_requests_running{engine=\"%d\"} 1\n", i)
	}
	cases := []struct {
		name string
		text io.Reader
		want error
	}{
		{"nothing", strings.NewReader(""), enginemetrics.ErrNotVLLM},
		{"another program", strings.NewReader("go_goroutines 5\nprocess_start_time_seconds 5\n"), enginemetrics.ErrNotVLLM},
		{"endless", io.MultiReader(strings.NewReader("# "), endless{}), enginemetrics.ErrTooLarge},
		{"ranks", strings.NewReader(ranks.String()), enginemetrics.ErrTooLarge},
		{"a page of HTML", strings.NewReader("<html></html>\n"), nil},
		{"a rank that is none", strings.NewReader(`vllm:num_requests_running{engine="x"} 1` + "\n"), nil},
		{"a rank twice", strings.NewReader(`vllm:num_requests_running{engine="00"} 1` + "\n"), nil},
		{"cut", strings.NewReader("vllm:num_requests_running{engine=\"0\"} 1\nvllm:num_requests_wai"), nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := enginemetrics.Parse(c.text)
			if err == nil || got != nil || c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("got %v, %v; want %v", got, err, c.want)
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func FuzzParse(f *testing.F) {
	f.Add(v092)
	f.Add(current(2))
	f.Add("vllm:num_requests_running{engine=\"0\"} 1e400\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := enginemetrics.Parse(strings.NewReader(text))
		if (err == nil) != (len(got) > 0) {
			t.Fatalf("%d snapshots with error %v", len(got), err)
		}
		for i := 1; i < len(got); i++ {
			if got[i].Rank <= got[i-1].Rank {
				t.Fatalf("rank %d after %d", got[i].Rank, got[i-1].Rank)
			}
		}
	})
}

func parse(t *testing.T, text string) []enginemetrics.Snapshot {
	t.Helper()
	got, err := enginemetrics.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return got
}
