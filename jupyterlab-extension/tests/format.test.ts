import { nullTranslator } from '@jupyterlab/translation';
import { describe, expect, it } from 'vitest';
import {
  about,
  clock,
  countdown,
  fromNow,
  gpuName,
  held,
  percent,
  size,
  sizePair,
  span
} from '../src/format';
import { shortModel } from '../src/model/naming';
import { consentLabel, freeText, inLine } from '../src/texts';
import { shownPool } from '../src/model/naming';
import { pool, simulated } from './builders';

const trans = nullTranslator.load('jupyterlab_gpuhub');
const MIN = 60_000;

describe('sizes', () => {
  it('are in GB with one decimal from 0.1 GB on', () => {
    expect(size(12_400_000_000, trans)).toBe('12.4 GB');
    expect(size(100_000_000, trans)).toBe('0.1 GB');
  });

  it('are in MB and kB below', () => {
    expect(size(99_000_000, trans)).toBe('99.0 MB');
    expect(size(2400, trans)).toBe('2 kB');
    expect(size(0, trans)).toBe('0 kB');
  });

  it('are in one unit where two stand together', () => {
    expect(sizePair(800_000_000, 1_206_000_000, trans)).toBe('0.8 of 1.2 GB');
    expect(sizePair(1_000_000, 5_300_000, trans)).toBe('1.0 of 5.3 MB');
    expect(sizePair(10, 2400, trans)).toBe('0 of 2 kB');
  });

  it('keep the sign of percent', () => {
    expect(percent(36.6, trans)).toBe('37 %');
  });
});

describe('times', () => {
  it('count down in minutes and seconds, and never below zero', () => {
    expect(countdown(271_000)).toBe('4:31');
    expect(countdown(270_400)).toBe('4:31');
    expect(countdown(9_000)).toBe('0:09');
    expect(countdown(-5_000)).toBe('0:00');
    expect(countdown(3_871_000)).toBe('1:04:31');
  });

  it('say how long a GPU is held in hours and minutes', () => {
    expect(held(42 * MIN)).toBe('0:42');
    expect(held(185 * MIN)).toBe('3:05');
    expect(held(-1)).toBe('0:00');
  });

  it('name the day only when it is another one', () => {
    const noon = new Date(2026, 10, 25, 12, 0).getTime();
    expect(clock(noon - 30 * MIN, noon)).toBe('11:30');
    expect(clock(noon - 26 * 60 * MIN, noon)).toContain('24 Nov');
  });

  it('are told as people do', () => {
    expect(fromNow(10_000, trans)).toBe('in a moment');
    expect(fromNow(4 * MIN, trans)).toBe('in 4 min');
    expect(fromNow(120 * MIN, trans)).toBe('in 2 h');
    expect(fromNow(125 * MIN, trans)).toBe('in 2 h 5 min');
    expect(about(5.6 * MIN, trans)).toBe('about 6 min');
    expect(about(20_000, trans)).toBe('about 1 min');
    expect(about(-1, trans)).toBe('any moment now');
    expect(span(20_000, trans)).toBe('less than a minute');
    expect(span(60 * MIN, trans)).toBe('1 h');
  });
});

describe('names of GPUs', () => {
  it('are short', () => {
    expect(shortModel('NVIDIA H100 80GB HBM3')).toBe('H100');
    expect(shortModel('NVIDIA A100-SXM4-40GB')).toBe('A100');
    expect(shortModel('NVIDIA GeForce RTX 4090')).toBe('RTX 4090');
    expect(shortModel('NVIDIA H100 PCIe')).toBe('H100');
    expect(shortModel('NVIDIA RTX A6000')).toBe('RTX A6000');
    expect(shortModel('Tesla T4')).toBe('T4');
  });

  it('always say when a GPU is simulated', () => {
    const gpu = { simulated: true, count: 1, memoryBytes: 8e9 };
    expect(gpuName({ ...gpu, model: 'simulated GPU 0' }, trans)).toBe('simulated GPU 0');
    expect(gpuName({ ...gpu, model: 'simulated GPU', count: 2 }, trans)).toBe('2 × simulated GPU');
    expect(gpuName({ ...gpu, model: 'H100' }, trans)).toBe('H100 (simulated)');
    expect(gpuName({ ...gpu, model: 'H100 (simulated)' }, trans)).toBe('H100 (simulated)');
    expect(gpuName({ ...gpu, model: '' }, trans)).toContain('simulated');
  });

  it('count more than one', () => {
    expect(gpuName({ model: 'H100', simulated: false, count: 2, memoryBytes: 0 }, trans)).toBe(
      '2 × H100'
    );
  });
});

describe('sentences', () => {
  it('have the English endings of places in line', () => {
    expect([1, 2, 3, 4, 11, 12, 13, 21, 22, 23].map(place => inLine(place, trans))).toEqual([
      'next in line',
      '2nd in line',
      '3rd in line',
      '4th in line',
      '11th in line',
      '12th in line',
      '13th in line',
      '21st in line',
      '22nd in line',
      '23rd in line'
    ]);
  });

  it('have singular and plural', () => {
    expect(consentLabel(1, 14, trans)).toBe('1 of 14 variables stays behind');
    expect(consentLabel(3, 16, trans)).toBe('3 of 16 variables stay behind');
  });

  it('count what is free, and call simulated GPUs so', () => {
    expect(freeText([shownPool(pool())], trans)).toBe('3 GPUs are free.');
    expect(freeText([shownPool(simulated())], trans)).toBe('1 simulated GPU is free.');
    expect(freeText([shownPool(pool({ total: 0, free: 0 }))], trans)).toBe(
      'No GPU works at the moment.'
    );
  });
});
