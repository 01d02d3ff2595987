/* Decoding of every kind of sound WAV and FLAC, mixing to mono, resampling. */
#define _DEFAULT_SOURCE
#include <math.h>
#include <sndfile.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/media/audio.h"
#include "tests/media/make.h"
#include "tests/test.h"

/* Full scale is 1: an integer of b bits is divided by 2^(b-1). Nothing is normalised. */
static void kinds_of_wav(void **test) {
  static const float floats[3] = {0.25f, -1.5f, 0x1p-20f};
  static const double doubles[3] = {0.25, -1.5, 0x1p-20};
  static const struct {
    uint32_t kind, bits;
    const void *data;
    float expected[3];
  } cases[] = {{1, 8, "\x80\x00\xff", {0, -1, 127 / 128.0f}},
               {1, 16, "\1\0\0\x80\xff\x7f", {1 / 32768.0f, -1, 32767 / 32768.0f}},
               {1, 24, "\1\0\0\0\0\x80\xff\xff\x7f", {0x1p-23f, -1, 1 - 0x1p-23f}},
               {1, 32, "\0\1\0\0\0\0\0\x80\0\0\0\x40", {0x1p-23f, -1, 0.5f}},
               {3, 32, floats, {0.25f, -1.5f, 0x1p-20f}},
               {3, 64, doubles, {0.25f, -1.5f, 0x1p-20f}}};
  arb_audio audio;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const uint32_t bytes = cases[i].bits / 8;
    forge f = {0};
    wav_file(&f,
             &(wav_spec){.kind = cases[i].kind,
                         .channels = 1,
                         .rate = 16000,
                         .block = bytes,
                         .bits = cases[i].bits,
                         .data_bytes = 3 * bytes},
             cases[i].data);
    arb_assert_ok(arb_audio_decode(f.bytes, f.used, "x.wav", 3, &audio));
    assert_true(audio.count == 3 && audio.rate == 16000);
    assert_memory_equal(audio.samples, cases[i].expected, 12);
    arb_audio_free(&audio);
    assert_null(audio.samples);
    free(f.bytes);
  }
  (void)test;
}

static void channels(void **test) {
  static const int16_t frames[] = {1000, 3000, -32768, 32767, 1, 0};
  arb_audio audio;
  forge f = {0};
  wav_file(&f, &(wav_spec){.kind = 1, .channels = 2, .rate = 44100, .block = 4, .bits = 16, .data_bytes = 12}, frames);
  arb_assert_ok(arb_audio_decode(f.bytes, f.used, "x.WAV", 3, &audio));
  assert_true(audio.count == 3 && audio.rate == 44100);
  assert_true(audio.samples[0] == 2000 / 32768.0f && audio.samples[1] == -0.5f / 32768 && audio.samples[2] == 0.5f / 32768);
  arb_audio_free(&audio);
  free(f.bytes);
  (void)test;
}

/* Chunks before, between and after; the extensible format. */
static void other_chunks(void **test) {
  static const unsigned char extensible[40] = {0xfe, 0xff, 1,    0, 0x80, 0x3e, 0, 0,    0, 0x7d, 0,    0,   2, 0,
                                               16,   0,    22,   0, 16,   0,    4, 0,    0, 0,    1,    0,   0, 0,
                                               0,    0,    0x10, 0, 0x80, 0,    0, 0xaa, 0, 0x38, 0x9b, 0x71};
  static const int16_t samples[3] = {1, 2, 3};
  arb_audio audio;
  forge f = {0};
  forge_text(&f, "RIFF....WAVE");
  wav_chunk(&f, "LIST", "INFOISFT\2\0\0\0a\0", 14);
  wav_chunk(&f, "fmt ", extensible, 40);
  wav_chunk(&f, "odd ", "abc", 3);
  wav_chunk(&f, "data", samples, 6);
  wav_chunk(&f, "LIST", "INFO", 4);
  wav_close(&f);
  arb_assert_ok(arb_audio_decode(f.bytes, f.used, "x", 3, &audio));
  assert_true(audio.count == 3 && audio.samples[2] == 3 / 32768.0f);
  arb_audio_free(&audio);
  free(f.bytes);
  (void)test;
}

static void flac(void **test) {
  const char *path = in_folder(*test, "x.flac");
  SF_INFO info = {.samplerate = 22050, .channels = 2, .format = SF_FORMAT_FLAC | SF_FORMAT_PCM_16};
  short frames[2 * 10000];
  for (int i = 0; i < 10000; i++) {
    frames[2 * i] = (short)(10000 * sin(i * 0.05));
    frames[2 * i + 1] = (short)(i % 2 ? i : -i);
  }
  SNDFILE *out = sf_open(path, SFM_WRITE, &info);
  assert_non_null(out);
  assert_int_equal(sf_writef_short(out, frames, 10000), 10000);
  assert_int_equal(sf_close(out), 0);
  arb_audio audio;
  arb_assert_ok(arb_audio_read(path, &audio));
  assert_true(audio.count == 10000 && audio.rate == 22050);
  for (int i = 0; i < 10000; i++) assert_true(audio.samples[i] == (float)((frames[2 * i] + frames[2 * i + 1]) / 65536.0));
  arb_audio_free(&audio);
}

/* ---- resampling -------------------------------------------------------------------------------------------------------- */

static arb_audio tone(int rate, int64_t count, double hertz) {
  arb_audio a = {malloc((size_t)count * sizeof(float)), count, rate};
  assert_non_null(a.samples);
  for (int64_t i = 0; i < count; i++) a.samples[i] = (float)(0.5 * sin(2 * 3.14159265358979 * hertz * (double)i / rate));
  return a;
}

/* A tone stays the tone, away from the ends; what 16 kHz cannot hold is gone. The filter's stated noise is at -145 dB; its
 * transition band begins at 97 %. */
static void resampled_tones(void **test) {
  static const struct {
    int rate;
    double hertz;
    bool kept;
  } cases[] = {{44100, 440, true}, {48000, 3000, true},   {8000, 440, true},    {22050, 7000, true},
               {96000, 440, true}, {44100, 12000, false}, {48000, 20000, false}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    arb_audio in = tone(cases[i].rate, cases[i].rate, cases[i].hertz), out;
    arb_assert_ok(arb_audio_resample(&in, 16000, &out));
    assert_true(out.rate == 16000 && llabs(out.count - 16000) <= 1);
    double worst = 0;
    for (int64_t n = 2000; n < 14000; n++) {
      const double expected = cases[i].kept ? 0.5 * sin(2 * 3.14159265358979 * cases[i].hertz * (double)n / 16000) : 0;
      const double error = fabs(out.samples[n] - expected);
      if (!(error <= worst)) worst = error; /* a NaN stays */
    }
    if (!(worst < 1e-5)) fail_msg("%g Hz at %d Hz: off by %g", cases[i].hertz, cases[i].rate, worst);
    arb_audio_free(&out);
    arb_audio_free(&in);
  }
  (void)test;
}

static void speech(void **test) {
  const char *path = in_folder(*test, "x.wav");
  int16_t samples[8000];
  for (int i = 0; i < 8000; i++) samples[i] = (int16_t)(i * 7);
  for (int rate = 8000; rate <= 16000; rate += 8000) {
    forge f = {0};
    arb_audio audio;
    wav_file(&f, &(wav_spec){.kind = 1, .channels = 1, .rate = (uint32_t)rate, .block = 2, .bits = 16, .data_bytes = 16000},
             samples);
    forge_write(&f, path);
    arb_assert_ok(arb_audio_read_speech(path, &audio));
    assert_true(audio.rate == 16000 && audio.count == (rate == 8000 ? 16000 : 8000));
    if (rate == 16000) /* untouched */
      for (int i = 0; i < 8000; i++) assert_true(audio.samples[i] == (float)samples[i] / 32768);
    arb_audio_free(&audio);
  }
}

static void limits(void **test) {
  arb_audio in = tone(16000, 1, 1), out;
  arb_assert_fails(arb_audio_resample(&in, 3999, &out), ARB_ERR_DATA, "a rate of 3999 Hz, expected 4000 to 384000");
  arb_assert_fails(arb_audio_resample(&in, 384001, &out), ARB_ERR_DATA, "a rate of 384001 Hz");
  arb_assert_ok(arb_audio_resample(&in, 16000, &out)); /* one sample stays one */
  assert_true(out.count == 1 && out.samples[0] == in.samples[0]);
  arb_audio_free(&out);
  in.count = ARB_AUDIO_MAX_FRAMES; /* refused before anything is read */
  in.rate = 8000;
  arb_assert_fails(arb_audio_resample(&in, 16000, &out), ARB_ERR_DATA, "134217728 samples after resampling, limit 67108864");
  assert_null(out.samples);
  arb_audio_free(&in);
  (void)test;
}

#define FOLDER(name) cmocka_unit_test_setup_teardown(name, folder_setup, folder_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(kinds_of_wav),    cmocka_unit_test(channels),
                                     cmocka_unit_test(other_chunks),    FOLDER(flac),
                                     cmocka_unit_test(resampled_tones), FOLDER(speech),
                                     cmocka_unit_test(limits)};
  return cmocka_run_group_tests_name("audio", tests, NULL, NULL);
}
