/** Our own icon; the others are JupyterLab's. */
import { LabIcon } from '@jupyterlab/ui-components';
import gpuSvg from '../style/icons/gpu.svg';

export const gpuIcon = new LabIcon({ name: 'gpuhub:gpu', svgstr: gpuSvg });
