"""What the readers make of well-formed traces."""

import gzip
import json
from pathlib import Path

import pytest

from trimtab.workload.azure import read_azure
from trimtab.workload.catalog import DATA_VARIABLE, find_traces, identify
from trimtab.workload.fault import TraceError
from trimtab.workload.mooncake import read_mooncake
from trimtab.workload.request import Media, MediaKind, TraceRequest, statistics_of
from trimtab.workload.servegen import Lengths, read_servegen

HEADS = Path(__file__).parents[2] / "data" / "traces"


def test_azure_times_count_from_the_first_request(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(
        b"TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n"
        b"2023-11-16 18:15:50.9951690,396,109"
    )
    first, second = read_azure(path).requests
    assert first == TraceRequest(0.0, 374, 44)
    assert second.at_seconds == pytest.approx(4.314579)
    assert (second.input_tokens, second.output_tokens) == (396, 109)


@pytest.mark.parametrize("stamp", ["2024-05-10 00:00:01+00:00", "2024-05-10T02:00:01+02:00", "2024-05-10 00:00:01"])
def test_azure_times_may_name_their_zone(stamp: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00,1,1\n{stamp},1,1\n")
    assert [request.at_seconds for request in read_azure(path).requests] == [0.0, 1.0]


def test_columns_may_come_in_any_order_and_more_than_needed(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("﻿NumImages,GeneratedTokens,TIMESTAMP,ContextTokens\n2,3,2024-05-10 00:00:00,4\n")
    assert read_azure(path).requests == (TraceRequest(0.0, 4, 3),)


def test_shipped_trace_is_whole() -> None:
    trace = find_traces().find("azure-conv").load(seed=0, start_seconds=0, duration_seconds=1e9)
    assert len(trace.requests) == 19_366
    assert trace.duration_seconds == pytest.approx(3501.72, abs=0.01)
    assert sum(request.input_tokens for request in trace.requests) == 22_361_870


def test_shipped_trace_has_its_licence_and_attribution_beside_it() -> None:
    folder = find_traces().find("azure-conv").path.parent
    assert "Attribution 4.0 International" in (folder / "LICENSE").read_text(encoding="utf-8-sig")
    assert "Microsoft" in (folder / "ATTRIBUTION.md").read_text()


def test_mooncake_blocks_cover_the_prompt() -> None:
    trace = read_mooncake(HEADS / "mooncake-fast25" / "conversation_trace.jsonl.gz")
    assert len(trace.requests) == 120
    assert trace.requests[0].blocks == tuple(range(14))
    assert trace.requests[0].input_tokens == 6758
    assert all(512 * (len(r.blocks) - 1) < r.input_tokens <= 512 * len(r.blocks) for r in trace.requests)


def test_servegen_reasoning_is_part_of_the_output() -> None:
    service = read_servegen(HEADS / "servegen" / "deepseek-r1_rates.csv.xz")
    trace = service.generate(seed=1, start_seconds=43_200, duration_seconds=7200)
    assert len(trace.requests) > 50
    assert all(0 < request.reasoning_tokens <= request.output_tokens for request in trace.requests)
    reasoning = sum(r.reasoning_tokens for r in trace.requests) / sum(r.output_tokens for r in trace.requests)
    assert statistics_of(trace).reasoning_tokens_fraction == reasoning
    assert statistics_of(trace).media_tokens_fraction == 0


def test_servegen_images_cost_input_tokens() -> None:
    service = read_servegen(HEADS / "servegen" / "mm-image_rates.csv.xz")
    trace = service.generate(seed=1, start_seconds=43_200, duration_seconds=600)
    with_images = [request for request in trace.requests if request.media]
    assert len(with_images) > len(trace.requests) / 2
    assert all(item.kind is MediaKind.IMAGE for request in with_images for item in request.media)
    assert all(request.input_tokens >= sum(item.tokens for item in request.media) for request in with_images)
    assert 0.3 < statistics_of(trace).media_tokens_fraction < 0.9


def test_servegen_clients_without_lengths_are_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "m_rates.csv").write_text(
        "client,t_s,rate_rps,cv,dist,p1,p2\n1,0,1,1,Gamma,1,1\n2,0,3,1,Weibull,0.5,1\n"
    )
    (tmp_path / "m_pdfs.jsonl").write_text(
        '{"client": 1, "t": 0, "input_tokens": {"5": 1.0}, "output_tokens": {"7": 1.0}}\n'
    )
    trace = read_servegen(tmp_path / "m_rates.csv").generate(seed=0, start_seconds=0, duration_seconds=600)
    assert {request.client for request in trace.requests} == {"1"}
    assert trace.notes == ("1 of 2 clients (75% of all requests) have no lengths in the data and are left out",)


def test_servegen_refuses_a_stretch_that_would_not_fit_into_memory(tmp_path: Path) -> None:
    (tmp_path / "m_rates.csv").write_text("client,t_s,rate_rps,cv,dist,p1,p2\n1,0,1e6,1,Gamma,1,1\n")
    (tmp_path / "m_pdfs.jsonl").write_text(
        '{"client": 1, "t": 0, "input_tokens": {"5": 1.0}, "output_tokens": {"7": 1.0}}\n'
    )
    with pytest.raises(TraceError, match=r"about 600,000,000 requests in 600 s; .* rate scale below 0\.0083"):
        read_servegen(tmp_path / "m_rates.csv").generate(seed=0, start_seconds=0, duration_seconds=600)


def test_servegen_says_where_its_data_is_silent() -> None:
    service = read_servegen(HEADS / "servegen" / "m-large_rates.csv.xz")
    with pytest.raises(TraceError, match="no requests between 0 s and 600 s of the data"):
        service.generate(seed=0, start_seconds=0, duration_seconds=600)


def test_idle_windows_do_not_give_lengths(tmp_path: Path) -> None:
    """A window in which nothing but 0 can be drawn is one without data: the window before it counts."""
    (tmp_path / "m_rates.csv").write_text("client,t_s,rate_rps,cv,dist,p1,p2\n1,21600,1,1,Gamma,1,1\n")
    good = {"client": 1, "t": 0, "input_tokens": {"5": 1.0}, "output_tokens": {"7": 1.0}}
    idle = {"client": 1, "t": 21_600, "input_tokens": {"0": 1.0}, "output_tokens": {"0": 1.0}}
    (tmp_path / "m_pdfs.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(idle)}\n")
    trace = read_servegen(tmp_path / "m_rates.csv").generate(seed=0, start_seconds=21_600, duration_seconds=60)
    assert {(request.input_tokens, request.output_tokens) for request in trace.requests} == {(5, 7)}


def test_window_keeps_what_lies_in_it_and_counts_from_its_start() -> None:
    trace = find_traces().find("azure-conv").load(seed=0, start_seconds=0, duration_seconds=1e9)
    part = trace.window(100, 50)
    expected = [r.at_seconds - 100 for r in trace.requests if 100 <= r.at_seconds < 150]
    assert [request.at_seconds for request in part.requests] == expected
    assert part.duration_seconds == 50
    assert trace.window(3500, 600).duration_seconds == pytest.approx(1.721937)


def test_window_after_the_end_says_how_long_the_trace_is() -> None:
    with pytest.raises(TraceError, match=r"no requests from 4000 s to 4060 s; it lasts 3501\.72 s"):
        find_traces().find("azure-conv").load(seed=0, start_seconds=4000, duration_seconds=60)


def test_recording_cannot_be_drawn_at_another_rate() -> None:
    with pytest.raises(TraceError, match="replay it at another speed"):
        find_traces().find("azure-conv").load(seed=0, start_seconds=0, duration_seconds=60, rate_scale=2)


class TestCatalog:
    def test_names_come_from_formats_and_files(self) -> None:
        assert list(find_traces(HEADS).entries) == [
            "azure-conv",
            "mooncake-conversation",
            "servegen-deepseek-r1",
            "servegen-m-large",
            "servegen-mm-image",
        ]

    def test_without_a_folder_the_missing_formats_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(DATA_VARIABLE, raising=False)
        assert [known.name for known in find_traces().missing] == ["mooncake", "servegen"]

    def test_folder_comes_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(DATA_VARIABLE, str(HEADS))
        assert "mooncake-conversation" in find_traces().entries

    @pytest.mark.parametrize("name", ["absent", "file"])
    def test_a_named_folder_must_be_there(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(TraceError, match=f"{name}: there is no such folder of data"):
            find_traces(tmp_path / name)

    def test_a_missing_folder_of_the_environment_is_a_problem_that_leaves_the_shipped_trace(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "absent"))
        catalog = find_traces()
        assert catalog.problems == (f"{tmp_path}/absent: no such folder",)
        assert "azure-conv" in catalog.entries
        with pytest.raises(TraceError, match=r"neither a file nor a known trace.*absent: no such folder"):
            catalog.find("mooncake-conversation")

    def test_a_file_is_known_by_its_columns_whatever_it_is_called(self, tmp_path: Path) -> None:
        path = tmp_path / "Monday 9am.csv"
        path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00,1,1\n")
        entry = identify(path)
        assert entry is not None
        assert (entry.name, entry.format.name) == ("azure-monday-9am", "azure")
        assert find_traces().find(str(path)).path == path

    def test_unrelated_files_are_passed_over(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("gpu,watts\n1,2\n")
        (tmp_path / "b.jsonl").write_text("not json\n")
        (tmp_path / "c.jsonl").write_text("[1]\n")
        (tmp_path / "d.csv").write_text("")
        catalog = find_traces(tmp_path)
        assert list(catalog.entries) == ["azure-conv"]
        assert catalog.problems == ()

    def test_unreadable_file_is_a_problem_and_not_fatal(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"x" * 99)[:20])
        catalog = find_traces(tmp_path)
        assert len(catalog.problems) == 1
        assert "a.csv.gz" in catalog.problems[0]

    def test_second_file_of_a_name_is_a_problem(self, tmp_path: Path) -> None:
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "x.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n")
        catalog = find_traces(tmp_path)
        assert catalog.entries["azure-x"].path == tmp_path / "a" / "x.csv"
        assert "has the same name, azure-x; ask for this one by its file" in catalog.problems[0]

    def test_own_folder_hides_the_shipped_trace_of_the_same_name(self, tmp_path: Path) -> None:
        path = tmp_path / "AzureLLMInferenceTrace_conv.csv"
        path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00,1,1\n")
        assert find_traces(tmp_path).find("azure-conv").path == path

    def test_unknown_name_lists_the_known_ones(self) -> None:
        with pytest.raises(TraceError, match="known: azure-conv, mooncake-conversation"):
            find_traces(HEADS).find("azure-code")

    def test_file_of_no_format_says_what_columns_are_needed(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        path.write_text("gpu,watts\n")
        with pytest.raises(TraceError, match="azure: ContextTokens, GeneratedTokens, TIMESTAMP"):
            find_traces().find(str(path))


def test_media_are_values() -> None:
    assert Media(MediaKind.IMAGE, 5) == Media(MediaKind.IMAGE, 5)


def test_draws_of_a_pdf_are_only_its_values() -> None:
    import numpy as np

    lengths = Lengths(np.array([3.0, 8.0]), np.array([0.25, 1.0]), smooth=False)
    drawn = lengths.draw(np.random.default_rng(0), 4000)
    assert set(drawn) == {3.0, 8.0}
    assert (drawn == 3.0).mean() == pytest.approx(0.25, abs=0.03)
