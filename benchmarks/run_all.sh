#!/usr/bin/env bash
# Makes every number of docs/results.md from ../shared/data. Each step resumes: run it again after a stop.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
mkdir -p runs/plans runs/logs

bench() { # name, plan
  echo "== $1"
  "$PYTHON" -m cosilo bench "$2" --run "runs/$1" --yes >"runs/logs/$1.txt" 2>&1 || tail -3 "runs/logs/$1.txt"
  "$PYTHON" -m cosilo report "runs/$1" --csv "runs/$1/points.csv" >/dev/null
}
variant() { # name, plan, sed expression: the same plan with another model
  sed -e "$3" "benchmarks/plans/$2.toml" >"runs/plans/$1.toml"  # same depth, so its paths hold
  bench "$1" "runs/plans/$1.toml"
}
script() { # name, command...
  echo "== $1"
  "$PYTHON" "${@:2}" 2>&1 | tee "runs/logs/$1.txt"
}

script routellm benchmarks/routellm.py
script certificate benchmarks/certificate.py
script coverage benchmarks/coverage.py
bench cfpb_gpt45 benchmarks/plans/cfpb_llm.toml
variant cfpb_o1 cfpb_llm 's/^model = "gpt-4.5"/model = "o1"/; s/^usd_per_m_in.*/usd_per_m_in = 15.0/; s/^usd_per_m_out.*/usd_per_m_out = 60.0/'
variant cfpb_gpt4o cfpb_llm 's/^model = "gpt-4.5"/model = "gpt-4o"/; s/^usd_per_m_in.*/usd_per_m_in = 2.5/; s/^usd_per_m_out.*/usd_per_m_out = 10.0/'
bench mmlu_llama benchmarks/plans/mmlu_pro_private.toml
variant mmlu_phi_gemini mmlu_pro_private 's/^model = "llama-3.1-8b"/model = "phi-3-mini"/; s/^model = "llama-3.1-70b"/model = "gemini-1.5-pro"/'
bench routellm_mmlu benchmarks/plans/routellm_mmlu.toml
script round_trip benchmarks/pseudonyms/round_trip.py
script literals benchmarks/pseudonyms/literals.py
bench nyc311 benchmarks/plans/nyc311.toml
bench mts_dialog benchmarks/plans/mts_dialog.toml
"$PYTHON" benchmarks/data/text2sql_defog.py
bench text2sql benchmarks/plans/text2sql_defog.toml
script overhead benchmarks/overhead.py
script cfpb_labels_dev benchmarks/distil/cfpb_labels.py --dev
script cfpb_labels benchmarks/distil/cfpb_labels.py
for turn in 1 2 3 4 5 6; do "$PYTHON" benchmarks/distil/banking77_texts.py write && break; done
script banking77_dev benchmarks/distil/banking77_texts.py measure --dev
script banking77 benchmarks/distil/banking77_texts.py measure
for turn in 1 2 3 4 5 6; do "$PYTHON" benchmarks/distil/banking77_states.py read --seconds 3600 && break; done
script banking77_states_dev benchmarks/distil/banking77_states.py measure --dev
script banking77_states benchmarks/distil/banking77_states.py measure --arms "trust 0.5" "trust 0"
script codec benchmarks/distil/codec.py --each 6
script output_layer benchmarks/distil/output_layer.py
script private_evolution_write benchmarks/distil/private_evolution.py write --seconds 36000
script private_evolution benchmarks/distil/private_evolution.py measure
script private_evolution_qwen_write benchmarks/distil/private_evolution.py write --model qwen2.5-coder-1.5b-instruct --backend torch --seconds 36000
script private_evolution_qwen benchmarks/distil/private_evolution.py measure --model qwen2.5-coder-1.5b-instruct
script vote_attack benchmarks/distil/vote_attack.py --trials 400
script vote_attack_ideal benchmarks/distil/vote_attack.py --ideal
script membership benchmarks/distil/membership.py
script healing benchmarks/healing.py
echo "== fit"
for ms in 15 7; do
  "$PYTHON" -m cosilo fit smollm2-135m-instruct --ms-per-token "$ms" --memory 1GB --out "runs/fit-$ms" \
    --text ../shared/data/cfpb_raw/train.jsonl 2>&1 | tee "runs/logs/fit-$ms.txt"
done
script across benchmarks/distil/across.py --seconds 36000
script across_report benchmarks/distil/across.py report
# A GKD step beside TRL's needs an environment that holds TRL too: see docs/results.md.
